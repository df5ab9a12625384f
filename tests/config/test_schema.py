"""The classes here stand for a user's; the module is put on the allow-list by its own name."""

import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Protocol

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field
from torch import nn

from unnoise.config import nodes as config
from unnoise.config.problems import UNKNOWN, Problem
from unnoise.config.schema import built, problems

if TYPE_CHECKING:
    from nowhere import Ghost


class Net(nn.Module):
    def __init__(
        self,
        channels: Annotated[int, Field(ge=1)],
        dropout: Annotated[float, Field(ge=0, le=1)] = 0.0,
        act: Literal["relu", "silu"] = "silu",
        mult: Sequence[int] = (1, 2),
        size: tuple[int, int] = (4, 4),
        name: str | None = None,
        block: "Block | None" = None,
        ghost: "Ghost | None" = None,
        flag: bool = False,
    ) -> None:
        super().__init__()
        if channels % 2:
            raise ValueError(f"channels {channels} must be even")
        self.weight = nn.Parameter(torch.empty(channels, 10**9))


class Block(nn.Module):
    def __init__(self, width: int = 1) -> None:
        super().__init__()
        if width > 9:
            raise ValueError(f"width {width} is more than 9")


class Wide(Block):
    pass


class Schedule(ABC):
    @abstractmethod
    def level(self) -> float: ...


class Linear(Schedule):
    def __init__(self, T: int = 10) -> None:
        if torch.linspace(0, 1, T)[-1] != 1:
            raise ValueError("T is 1")

    def level(self) -> float:
        return 0.0


def quick(T: int = 10) -> Linear:
    return Linear(T)


class Speaks(Protocol):
    def speak(self) -> str: ...


class Cat:
    def speak(self) -> str:
        return "meow"


@dataclass
class Clip:
    low: float = -1.0


class Pair(NamedTuple):
    left: int


class Anything:
    def __init__(self, known: int = 1, **others: object) -> None: ...


class Explodes:
    def __init__(self, x: int = 1) -> None:
        raise KeyError("boom")


@dataclass
class Root:
    network: nn.Module
    batch_size: Annotated[int, Field(ge=1, le=4096)]
    schedule: Schedule | None = None
    optimizer: Callable[..., torch.optim.Optimizer] | None = None
    callbacks: Sequence[Block] | None = None
    loggers: Mapping[str, Cat] | None = None
    voice: Speaks | None = None
    clip: Clip | None = None
    pair: Pair | None = None
    precision: Literal[16, 32] | Literal["bf16"] | None = None
    devices: list[int] | int | Literal["auto"] = "auto"
    folder: Path = Path()
    seed: int = 0
    rate: float = 1.0
    extra: Any = None


@pytest.fixture(autouse=True)
def allowed(monkeypatch):
    monkeypatch.setattr(config, "USERS_PACKAGES", (__name__,))


def node(name: str, /, **arguments: object) -> dict[str, Any]:
    return {"_target_": f"{__name__}.{name}", **arguments}


def check(**changes: object) -> list[str]:
    """The problems of a good configuration with some root keys changed."""
    good = {"network": node("Net", channels=4), "batch_size": 8}
    return [str(problem) for problem in problems({**good, **changes}, Root)]


GOOD = [
    {},
    {"rate": 1, "folder": "some/where", "seed": -3, "batch_size": 4096},
    {"network": node("Net", channels=2, mult=[1, 2, 4], size=[3, 4], name=None, dropout=1)},
    {"network": node("Net", channels=2, ghost="anything", block=node("Wide", width=3))},
    {"schedule": node("Linear"), "voice": node("Cat"), "clip": node("Clip", low=0)},
    {"schedule": node("quick", T=3), "pair": node("Pair", left=1)},
    {"optimizer": {"_target_": "torch.optim.Adam", "_partial_": True, "lr": 1e-3, "betas": [0, 1]}},
    {"callbacks": [node("Block"), node("Wide")], "loggers": {"a": node("Cat")}},
    {"callbacks": [], "schedule": None, "precision": "bf16", "devices": [0, 1]},
    {"precision": 16, "devices": 2, "extra": {"a": [1, node("Anything", other=3)]}},
]


@pytest.mark.parametrize("changes", GOOD)
def test_good_configurations_have_no_problem(changes):
    assert check(**changes) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        # keys
        ({"bach_size": 3}, "bach_size: unknown key; did you mean 'batch_size'?"),
        (
            {"network": node("Block", zzz=1)},
            "network.zzz: unknown key; Block takes width",
        ),
        (
            {"network": node("Net", channels=2, chanels=3)},
            "network.chanels: unknown key; did you mean 'channels'?",
        ),
        ({"voice": node("Cat", x=1)}, "voice.x: unknown key; Cat takes nothing"),
        (
            {"network": node("Net")},
            "network.channels: missing: Net needs it; give it as +network.channels=...",
        ),
        ({"batch_size": "???"}, "batch_size: missing: give it as batch_size=..."),
        ({"network": "???"}, "network: missing: give it as network=..."),
        (
            {"network": node("Net", channels="???")},
            "network.channels: missing: give it as network.channels=...",
        ),
        ({"extra": ["???"]}, "extra.0: missing: give it as extra.0=..."),
        # values
        ({"seed": "abc"}, "seed: 'abc' is not a whole number"),
        ({"seed": 1.5}, "seed: 1.5 is not a whole number"),
        ({"seed": True}, "seed: true is not a whole number"),
        ({"seed": None}, "seed: null is not a whole number"),
        ({"seed": {"a": 1}}, "seed: a mapping is not a whole number"),
        ({"rate": "1e-3"}, "rate: '1e-3' is not a number"),
        ({"rate": True}, "rate: true is not a number"),
        ({"folder": 3}, "folder: 3 is not a path"),
        ({"batch_size": 0}, "batch_size: must be >= 1, not 0"),
        ({"batch_size": 4097}, "batch_size: must be <= 4096, not 4097"),
        (
            {"network": node("Net", channels=2, dropout=1.5)},
            "network.dropout: must be <= 1, not 1.5",
        ),
        (
            {"network": node("Net", channels=2, act="sillu")},
            "network.act: 'sillu' is not 'relu' or 'silu'; did you mean 'silu'?",
        ),
        (
            {"network": node("Net", channels=2, mult=[1, "x"])},
            "network.mult.1: 'x' is not a whole number",
        ),
        ({"network": node("Net", channels=2, mult=3)}, "network.mult: 3 is not a list"),
        (
            {"network": node("Net", channels=2, size=[1, 2, 3])},
            "network.size: must have at most 2 items, not 3",
        ),
        (
            {"network": node("Net", channels=2, flag="yes")},
            "network.flag: 'yes' is not true or false",
        ),
        ({"network": node("Net", channels=2, name=7)}, "network.name: 7 is not a string"),
        ({"precision": "bf"}, "precision: 'bf' is not 16, 32 or 'bf16'; did you mean 'bf16'?"),
        ({"devices": ["x"]}, "devices.0: 'x' is not a valid integer"),
        ({"devices": 1.5}, "devices: 1.5 is not a list, a whole number or 'auto'"),
        ({"optimizer": "adam"}, "optimizer: 'adam' is not a function"),
        # nodes
        ({"network": "unet"}, "network: 'unet' is not a Module: give one by its _target_"),
        (
            {"network": {"channels": 2}},
            "network: a mapping is not a Module: give one by its _target_",
        ),
        ({"voice": 3}, "voice: 3 is not a Speaks: give one by its _target_"),
        ({"clip": {}}, "clip: a mapping is not a Clip: give one by its _target_"),
        ({"pair": [1]}, "pair: [1] is not a Pair: give one by its _target_"),
        ({"network": node("Cat")}, "network: Cat makes a Cat, not a Module"),
        ({"network": node("quick")}, "network: quick makes a Linear, not a Module"),
        ({"seed": node("Cat")}, "seed: Cat makes a Cat, not a whole number"),
        (
            {"network": node("Net", channels=2, block=node("Cat"))},
            "network.block: Cat makes a Cat, not a Block",
        ),
        ({"callbacks": [node("Wide"), node("Cat")]}, "callbacks.1: Cat makes a Cat, not a Block"),
        ({"loggers": {"a": node("Wide")}}, "loggers.a: Wide makes a Wide, not a Cat"),
        (
            {"batch_size": [node("Cat")]},
            "batch_size: [{'_target_': 'test_schema.Cat'}] is not a whole number",
        ),
        (
            {"schedule": node("Schedule")},
            "schedule._target_: Schedule is abstract: name a subclass",
        ),
        ({"voice": node("Speaks")}, "voice._target_: Speaks is abstract: name a subclass"),
        (
            {"network": node("Net", channels=2, _partial_="yes")},
            "network._partial_: 'yes' is not true or false",
        ),
        (
            {"network": node("Net", channels=2, _parital_=True)},
            "network._parital_: unknown key; did you mean '_partial_'?",
        ),
        ({"voice": node("Cat", _args_=[1])}, "voice._args_: unknown key; did you mean '_target_'?"),
        (
            {"network": node("Nett", channels=2)},
            "network._target_: test_schema has no 'Nett'; did you mean 'Net'?",
        ),
        (
            {"network": {"_target_": "???"}},
            "network._target_: missing: give it as network._target_=...",
        ),
        (
            {"network": {"_target_": 3}},
            "network._target_: 3 is not a dotted path such as unnoise.networks.unet.UNet",
        ),
        (
            {"optimizer": {"_target_": "torch.optim.Adam", "_partial_": True, "betas": [0.9]}},
            "optimizer.betas: lacks item 2",
        ),
    ],
)
def test_each_problem_in_plain_words(changes, message):
    assert check(**changes) == [message]


def test_torch_and_lightning_signatures_are_a_schema():
    def root(trainer: Any, optimizer: Any) -> None: ...

    found = problems(
        {
            "trainer": {"_target_": "lightning.Trainer", "max_step": 3, "max_epochs": "many"},
            "optimizer": {"_target_": "torch.optim.AdamW", "_partial_": True, "foreach": "no"},
        },
        root,
    )
    assert [str(problem) for problem in found] == [
        "trainer.max_step: unknown key; did you mean 'max_steps'?",
        "trainer.max_epochs: 'many' is not a whole number",
        "optimizer.foreach: 'no' is not true or false",
    ]


def test_all_problems_come_at_once_and_a_bad_node_hides_nothing_inside_it():
    found = check(
        seed="x",
        batch_size=0,
        oops=node("Block", width="w"),
        network={"_target_": "os.system", "inner": node("Block", wdth=1)},
        callbacks=[node("Block", width="w"), {"_target_": "subprocess.Popen"}],
    )
    keys = {text.partition(": ")[0] for text in found}
    assert keys == {
        *("seed", "batch_size", "oops", "oops.width", "network._target_", "network.inner.wdth"),
        *("callbacks.0.width", "callbacks.1._target_"),
    }
    assert len(found) == len(keys)


def test_a_value_reported_before_is_not_reported_again():
    assert check(seed=UNKNOWN, network=UNKNOWN, extra=[UNKNOWN], batch_size=UNKNOWN) == []
    assert check(network={"_target_": UNKNOWN}) == []


def test_any_callable_is_a_schema():
    def root(a: int, b: str = "x") -> None: ...

    assert [str(p) for p in problems({"b": 1}, root)] == [
        "b: 1 is not a string",
        "a: missing: the configuration needs it; give it as +a=...",
    ]


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
trees = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["_target_", "_partial_", "channels", "width", "mult"])
            | st.text(max_size=3),
            inner | st.sampled_from([f"{__name__}.{name}" for name in ("Net", "Block", "Cat")]),
            max_size=4,
        )
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(sorted(Root.__dataclass_fields__)), trees, max_size=4))
def test_any_tree_is_judged_without_an_exception(tree):
    for problem in problems(tree, Root):
        assert problem.message
        assert "\n" not in problem.key


@given(value=leaves)
def test_a_whole_number_in_its_range_is_what_is_accepted(value):
    fine = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 4096
    assert (check(batch_size=value) == []) == fine


def test_construction_finds_the_constructors_own_rules_on_meta():
    tree = {
        "network": node("Net", channels=3, block=node("Block")),
        "other": node("Net", channels=4, block=node("Block", width=10)),
        "fine": node("Net", channels=10**6),  # four petabytes of weights
        "late": node("Net", channels=3, _partial_=True),
        "bare": 3,
        "list": [node("Block"), node("Block", width=11)],
        "bang": node("Explodes"),
    }
    assert built(tree, [*tree, "absent"])[1] == [
        Problem("network", "channels 3 must be even"),
        Problem("other.block", "width 10 is more than 9"),
        Problem("list.1", "width 11 is more than 9"),
        Problem("bang", "cannot be built: KeyError: 'boom'"),
    ]
    assert built(tree, ["fine"])[1] == []


def test_construction_can_look_at_values_on_another_device():
    tree = {"schedule": node("Linear", T=1), "other": node("Linear")}
    assert built(tree, ["schedule", "other"], device="cpu")[1] == [Problem("schedule", "T is 1")]


def test_a_bad_configuration_of_plain_values_is_judged_without_torch():
    code = (
        "import sys; from unnoise.config.schema import problems\n"
        "def root(a: int): ...\n"
        "print(len(problems({'a': 'x'}, root)), 'torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["1", "False"]
