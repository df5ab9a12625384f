import os
from textwrap import dedent

import pytest
from hydra.core.hydra_config import HydraConfig
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unnoise.config import compose
from unnoise.config import nodes as config
from unnoise.config.compose import CONF, check_command_line
from unnoise.config.problems import UNKNOWN, Problem


class Net:
    def __init__(self, channels: int = 8, dropout: float = 0.0) -> None: ...


FILES = {
    "train.yaml": f"""
        defaults:
          - data: ???
          - network: small
          - logger: none
          - optional experiment: null
          - _self_
        seed: 0
        batch_size: 64
        lr: 1e-3
        name: run-${{seed}}
        out: ${{hydra:runtime.output_dir}}
        job: ${{hydra:job.num}}
        trainer:
          max_steps: 10
          devices: [0, 1]
        conditioner:
          _target_: {__name__}.Net
          channels: ${{data.channels}}
        """,
    "broken.yaml": "a: [1\n",
    "data/mnist.yaml": "channels: 1\n",
    "data/cifar10.yaml": "channels: 3\npath: ???\n",
    "network/small.yaml": f"_target_: {__name__}.Net\nchannels: 8\n",
    "network/large.yaml": f"_target_: {__name__}.Net\nchannels: 64\ndepth: 3\n",
    "network/torn.yaml": "a: [1\n",
    "logger/none.yaml": "kind: none\n",
    "callbacks/grid.yaml": "every: 5\n",
    "experiment/fast.yaml": """
        # @package _global_
        defaults:
          - override /network: large
        trainer: {max_steps: 2}
        """,
    "experiment/stale.yaml": """
        # @package _global_
        defaults:
          - override /network: lrage
        """,
    "experiment/lost.yaml": """
        # @package _global_
        a: ${no_such.key}
        b: ${oc.env:NO_SUCH_VARIABLE_HERE}
        c: ${c}
        d: ${trainer.max_stepz}
        e: ${no_resolver:1}
        f: {g: ["${seedd}"]}
        h: ${data.path}
        """,
    "hparams_search/lr.yaml": """
        # @package _global_
        hydra:
          sweeper:
            params:
              lr: 0.1,0.2
              seedd: 1,2
        """,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("conf")
    for name, text in FILES.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(dedent(text).lstrip("\n"))
    return root


@pytest.fixture(autouse=True)
def in_folder(folder, monkeypatch):
    monkeypatch.setattr(compose, "CONF", folder)
    monkeypatch.setattr(config, "USERS_PACKAGES", (__name__,))


def told(*overrides: str) -> list[str]:
    return [str(problem) for problem in check_command_line("train", list(overrides))[1]]


def composed(*overrides: str) -> dict:
    tree, found = check_command_line("train", list(overrides))
    assert found == []
    assert tree is not None
    return tree


def test_shipped_configurations_are_beside_the_package_or_the_checkout():
    assert CONF.name == "conf"
    assert CONF.parent.name == "unnoise" or (CONF.parent / "src" / "unnoise").is_dir()


def test_a_good_command_line_gives_the_plain_resolved_tree():
    tree = composed("data=mnist", "seed=7", "trainer.max_steps=3", "trainer.devices.1=4")
    assert tree == {
        "seed": 7,
        "batch_size": 64,
        "lr": 1e-3,
        "name": "run-7",
        "out": tree["out"],
        "job": 0,
        "trainer": {"max_steps": 3, "devices": [0, 4]},
        "data": {"channels": 1},
        "network": {"_target_": f"{__name__}.Net", "channels": 8},
        "conditioner": {"_target_": f"{__name__}.Net", "channels": 1},
        "logger": {"kind": "none"},
    }
    assert os.path.isabs(tree["out"])
    assert not HydraConfig.initialized()
    plain = {dict, list, str, int, float}
    assert {type(tree["trainer"]["devices"]), type(tree["data"]), type(tree["lr"])} <= plain


def test_groups_experiments_and_signs_work_as_in_hydra():
    tree = composed(
        *("trainer.max_steps=5", "experiment=fast", "data=cifar10", "~lr", "+extra.deep=1"),
        *("++seed=4", "++new=x", "+callbacks=grid", "network.depth=9", "~logger"),
        *("data.path=some/where", "hydra.run.dir=elsewhere"),
    )
    assert tree["network"] == {"_target_": f"{__name__}.Net", "channels": 64, "depth": 9}
    assert (tree["trainer"]["max_steps"], tree["seed"], tree["new"]) == (5, 4, "x")
    assert (tree["extra"], tree["callbacks"]) == ({"deep": 1}, {"every": 5})
    assert "lr" not in tree
    assert "logger" not in tree
    assert tree["out"] == os.path.abspath("elsewhere")


def test_what_is_missing_stays_marked():
    assert composed("data=cifar10")["data"] == {"channels": 3, "path": "???"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data=mnistt", "no such option; did you mean 'mnist'? (cifar10, mnist)"),
        ("data=imagenet", "no such option (cifar10, mnist)"),
        ("data=3", "no such option (cifar10, mnist)"),
        ("network=lrage", "no such option; did you mean 'large'? (large, small, torn)"),
        ("dat=mnist", "unknown key; did you mean 'data'?"),
        ("sed=3", "unknown key; did you mean 'seed'?"),
        ("trainer.max_step=3", "unknown key; did you mean 'trainer.max_steps'?"),
        ("trainr.max_steps=3", "unknown key; did you mean 'trainer.max_steps'?"),
        ("max_steps=3", "unknown key; did you mean 'trainer.max_steps'?"),
        ("zzzzzz=3", "unknown key"),
        ("network.chanels=3", "unknown key; did you mean 'network.channels'?"),
        ("network.dropot=3", "unknown key; did you mean 'network.dropout'?"),
        (
            "network.dropout=0.1",
            "is not set in this configuration; to add it write +network.dropout=0.1",
        ),
        ("~sed", "unknown key; did you mean 'seed'?"),
        ("~data=cifar10", "is not a part of this configuration: there is nothing to remove"),
        ("+seed=3", "is set already; write seed=3"),
        (
            "callbacks=grid",
            "is not a part of this configuration; to add it write +callbacks=grid",
        ),
        ("+network=large", "is a part of the configuration already; write network=large"),
        ("experiment=stale", "names 'network/lrage', which does not exist; did you mean 'large'?"),
        ("seed.deep=3", "unknown key; did you mean 'seed'?"),
        ("hydra.run.dri=x", "unknown key; did you mean 'hydra.run.dir'?"),
    ],
)
def test_each_refused_override_is_explained_and_left_out(override, message):
    tree, found = check_command_line("train", ["data=mnist", override, "batch_size=3"])
    assert [str(problem) for problem in found] == [f"{override}: {message}"]
    assert tree is not None
    assert tree["batch_size"] == 3
    assert tree["seed"] == 0


@pytest.mark.parametrize(
    "override", ["seed", "=3", "seed 3", "seed=[1", "a=${", "", "data=glob(x*)", "--cfg"]
)
def test_what_cannot_be_read_is_told(override):
    (found,) = check_command_line("train", ["data=mnist", override])[1]
    assert found.key == override
    assert found.message.startswith("cannot be read; ")


def test_many_mistakes_come_at_once():
    overrides = ["data=mnistt", "netwrk=small", "seed=3", "trainer.max_step=1", "experiment=stale"]
    tree, found = check_command_line("train", overrides)
    assert {problem.key for problem in found} == set(overrides) - {"seed=3"}
    assert tree is not None
    assert tree["seed"] == 3


def test_a_group_that_must_be_given_is_asked_for_and_the_rest_is_still_checked():
    assert told("sed=3") == [
        "sed=3: unknown key; did you mean 'seed'?",
        "data: missing: give it as data=... (cifar10, mnist)",
    ]


def test_the_option_probably_meant_stands_in_for_a_mistyped_one():
    assert told("network=lagre", "network.depth=4", "data=mnist") == [
        "network=lagre: no such option; did you mean 'large'? (large, small, torn)"
    ]


def test_a_configuration_that_cannot_be_read_is_told_with_its_place():
    tree, found = check_command_line("broken", [])
    assert tree is None
    assert len(found) == 1
    assert "broken.yaml, line 2" in found[0].message
    (torn,) = told("data=mnist", "network=torn")
    assert torn.startswith("network=torn: ")
    assert "torn.yaml, line 2" in torn


def test_an_unknown_configuration_is_told():
    assert check_command_line("trian", ["seed=3"]) == (
        None,
        [Problem("trian", "no such configuration; did you mean 'train'? (broken, train)")],
    )


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("seed=5,6", 5),
        ("seed=choice(5,6)", 5),
        ("seed=range(5,9)", 5),
        ("seed=interval(5,9)", 5),
        ("seed=5", 5),
    ],
)
def test_of_a_sweep_the_first_value_is_used(override, value):
    assert composed("data=mnist", override)["seed"] == value


def test_keys_and_all_group_options_of_a_sweep_are_checked():
    assert composed("data=mnist,cifar10")["data"]["channels"] == 1
    assert composed("data=glob(*)")["data"]["channels"] == 3
    assert told("data=mnist,cifar,cifar10", "sed=1,2", "network=choice(small,larg)") == [
        "sed=1: unknown key; did you mean 'seed'?",
        "data=cifar: no such option; did you mean 'cifar10'? (cifar10, mnist)",
        "network=larg: no such option; did you mean 'large'? (large, small, torn)",
    ]


def test_the_keys_a_sweeper_will_set_are_checked():
    assert told("data=mnist", "+hparams_search=lr") == [
        "seedd=1: unknown key; did you mean 'seed'?"
    ]


def test_interpolations_that_fail_are_told_by_key_and_marked():
    tree, found = check_command_line("train", ["data=cifar10", "experiment=lost"])
    assert [str(problem) for problem in found] == [
        "a: refers to 'no_such.key', which does not exist",
        "b: environment variable 'NO_SUCH_VARIABLE_HERE' is not set",
        "c: Recursive interpolation detected",
        "d: refers to 'trainer.max_stepz', which does not exist; did you mean 'trainer.max_steps'?",
        "e: Unsupported interpolation type no_resolver",
        "f.g.0: refers to 'seedd', which does not exist; did you mean 'seed'?",
    ]
    assert tree is not None
    assert all(tree[key] is UNKNOWN for key in "abcdeh")  # h: its missing source speaks for it
    assert tree["f"] == {"g": [UNKNOWN]}


def test_the_run_directory_may_ask_hydra_for_its_choices():
    tree = composed("data=mnist", "hydra.run.dir='a/${hydra:runtime.choices.data}'")
    assert tree["out"] == os.path.abspath("a/mnist")


def test_a_run_directory_that_cannot_be_named_is_told_and_the_rest_is_kept():
    tree, found = check_command_line("train", ["data=mnist", "hydra.run.dir='a/${no_such}'"])
    assert [str(p) for p in found] == ["hydra.run.dir: refers to 'no_such', which does not exist"]
    assert tree is not None
    assert tree["seed"] == 0


def test_a_further_folder_adds_options(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.yaml").write_text("channels: 4\n")
    tree, found = check_command_line("train", ["data=mine"], [tmp_path])
    assert found == []
    assert tree is not None
    assert tree["data"] == {"channels": 4}
    tree, found = check_command_line("train", ["data=mine", f"hydra.searchpath=[{tmp_path}]"])
    assert (tree or {})["data"] == {"channels": 4}
    _, found = check_command_line("train", [f"hydra.searchpath=[{tmp_path}]", "data=mien"])
    assert [problem.key for problem in found] == ["data=mien"]
    assert "did you mean 'mine'?" in found[0].message
    _, found = check_command_line("train", ["data=mien"], [tmp_path, tmp_path / "absent"])
    assert [str(problem) for problem in found] == [
        f"--config-dir {tmp_path / 'absent'}: there is no such folder",
        "data=mien: no such option; did you mean 'mine'? (cifar10, mine, mnist)",
    ]


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.text("seda=,.~+@/[]{}()'$ 1:", max_size=12), max_size=3))
def test_any_command_line_is_judged_without_an_exception(overrides):
    tree, found = check_command_line("train", ["data=mnist", *overrides])
    assert tree is not None
    assert all(problem.message for problem in found)
