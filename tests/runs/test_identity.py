"""Which configurations are the same run."""

import os
import subprocess
import sys

import pytest

from unnoise.config.compose import check_command_line
from unnoise.config.identity import identity_of, part_of_sweep
from unnoise.config.schema import arguments
from unnoise.runs.identity import Argument, Role, differences, identity

RECIPE = "unnoise.training.recipe.DiffusionRecipe"


def digests(*overrides):
    config, found = check_command_line("train", list(overrides))
    assert not found, found
    return identity_of(config)


@pytest.fixture(scope="module")
def plain():
    return check_command_line("train", [])[0]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["optimizer.lr=1e-4"], ["optimizer.lr=0.0001"]),
        (["seed=1", "max_steps=9"], ["max_steps=9", "seed=1"]),
        (["gradient_clip=1"], ["gradient_clip=1.0"]),
        (["schedule=linear"], []),
        (["experiment=sprites"], ["experiment=sprites", "name=other", "max_steps=1400"]),
        (["sampler.steps=64", "batch_size=64"], ["sampler.steps=${batch_size}"]),
    ],
    ids=str,
)
def test_the_same_config_typed_in_other_ways_is_the_same_run(one, other):
    assert digests(*one) == digests(*other)


ROLES = {key: each.role or Role.TRAINED for key, each in arguments(RECIPE).items()}


def test_every_key_changes_what_its_role_says(plain):
    trained, shown = identity_of(plain).split("-")
    for key, value in plain.items():
        other = {**value, "more": 1} if isinstance(value, dict) else 7
        if key == "_target_":
            continue
        changed = identity_of(plain | {key: other}).split("-")
        role = ROLES[key]
        assert (changed[0] != trained, changed[1] != shown) == (
            role == Role.TRAINED,
            role == Role.SHOWN,
        ), key


def test_the_roles_of_keys_that_are_often_changed():
    found = {role: {key for key, each in ROLES.items() if each == role} for role in Role}
    assert found[Role.SHOWN] >= {"sampler", "callbacks", "accumulate", "validate_every"}
    assert found[Role.MACHINE] == {
        *("trainer", "logger", "workers", "rank_timeout", "latent_cache"),
    }
    assert found[Role.NAME] == {"name", "metric"}
    assert found[Role.CALL] == {"data_changed", "resume", "sweep", "first_stage", "until"}
    assert found[Role.TRAINED] >= {"seed", "network", "schedule", "max_steps", "optimizer"}


def signature(*more):
    """The arguments of targets by name, for two versions of a program."""
    return {
        "recipe": {"seed": Argument(), "steps": Argument(10)} | dict(more),
        "net": {"channels": Argument(8), "act": Argument(("a", 1.0))},
    }


CONFIG = {"_target_": "recipe", "seed": 0, "steps": 10, "net": {"_target_": "net", "channels": 4}}


def test_a_further_argument_at_its_default_leaves_every_run_what_it_is():
    before, after = (
        signature(),
        signature(("decay", Argument(0.5)), ("shown", Argument([], Role.SHOWN))),
    )
    after["net"]["dropout"] = Argument(0.0)
    grown = CONFIG | {"decay": 0.5, "shown": [], "net": {**CONFIG["net"], "dropout": 0}}
    assert identity(grown, after.__getitem__) == identity(CONFIG, before.__getitem__)
    assert differences(CONFIG, grown, after.__getitem__) == {}
    assert differences(grown, CONFIG, after.__getitem__) == {}
    other = {**grown, "decay": 0.25}
    assert identity(other, after.__getitem__) != identity(CONFIG, before.__getitem__)
    assert differences(CONFIG, other, after.__getitem__) == {"decay": (None, 0.25)}


def test_a_default_that_is_written_out_is_the_same_as_one_that_is_not():
    arguments = signature().__getitem__
    written = {**CONFIG, "net": {**CONFIG["net"], "act": ["a", 1]}}
    assert identity(written, arguments) == identity(CONFIG, arguments)
    assert identity({**CONFIG, "steps": 10.0}, arguments) == identity(CONFIG, arguments)
    assert identity({**CONFIG, "steps": 11}, arguments) != identity(CONFIG, arguments)


def test_a_node_in_a_list_is_a_node():
    arguments = signature().__getitem__
    one, two = ({**CONFIG, "nets": [{"_target_": "net"} | more]} for more in ({}, {"channels": 8}))
    assert identity(one, arguments) == identity(two, arguments)
    assert identity({**one, "nets": []}, arguments) != identity(one, arguments)


def test_the_folder_tells_data_apart_only_where_it_is_what_the_data_are(plain):
    def lies_in(root, target):
        return identity_of(plain | {"data": plain["data"] | {"_target_": target, "root": root}})

    mnist, folder = "unnoise.data.classics.MNIST", "unnoise.data.folders.ImageFolder"
    assert lies_in("a", mnist) == lies_in("b", mnist)
    for target in (folder, "mine.Pictures"):
        assert lies_in("a", target) != lies_in("b", target), target


START = (
    "from unnoise.config import identity as i; print(i.STARTED, 'UNNOISE_STARTED' in i.os.environ)"
)


def test_the_start_is_told_to_a_sweep_s_own_processes_and_to_no_others(monkeypatch):
    def of_a_process():
        done = subprocess.run([sys.executable, "-c", START], capture_output=True, text=True)
        return done.stdout.split()

    monkeypatch.delenv("UNNOISE_STARTED", raising=False)
    monkeypatch.setattr("unnoise.config.identity.STARTED", "2026-01-31_12-00-00")
    with part_of_sweep("1a2b3c4d"):
        assert of_a_process() == ["2026-01-31_12-00-00", "True"]
    assert "UNNOISE_STARTED" not in os.environ
    started, told = of_a_process()
    assert (started != "2026-01-31_12-00-00", told) == (True, "False")
