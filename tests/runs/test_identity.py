"""Which configurations are the same run."""

import os
import subprocess
import sys

import pytest

from unnoise.config.compose import check_command_line
from unnoise.config.identity import NAMELESS, identity, sweep_told


def digests(*overrides):
    config, found = check_command_line("train", list(overrides))
    assert not found, found
    return identity(config)


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
        (["experiment=sprites"], ["experiment=sprites", "name=other", "max_steps=1200"]),
        (["sampler.steps=64", "batch_size=64"], ["sampler.steps=${batch_size}"]),
    ],
    ids=str,
)
def test_the_same_config_typed_in_other_ways_is_the_same_run(one, other):
    assert digests(*one) == digests(*other)


def test_every_key_that_is_not_volatile_changes_the_digest_and_no_other_does(plain):
    whole = identity(plain)
    for key, value in plain.items():
        changed = identity(plain | {key: {**value, "more": 1} if isinstance(value, dict) else 7})
        assert (changed == whole) == (key in NAMELESS), key
    assert {"trainer", "logger", "workers", "resume", "sweep"} <= set(NAMELESS)


@pytest.mark.parametrize(
    ("key", "changed"),
    [("seed", "trained"), ("sampler", "drawn"), ("callbacks", "drawn"), ("accumulate", "rest")],
)
def test_each_part_of_the_digest_is_of_its_own_keys(plain, key, changed):
    def parts(config):
        trained, others = identity(config).split("-")
        return {"trained": trained, "drawn": others[:4], "rest": others[4:]}

    before, after = parts(plain), parts(plain | {key: {"other": 1}})
    assert [part for part in before if before[part] != after[part]] == [changed]


def test_the_folder_tells_data_apart_only_where_it_is_what_the_data_are(plain):
    def lies_in(root, target):
        return identity(plain | {"data": plain["data"] | {"_target_": target, "root": root}})

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
    with sweep_told("1a2b3c4d"):
        assert of_a_process() == ["2026-01-31_12-00-00", "True"]
    assert "UNNOISE_STARTED" not in os.environ
    started, told = of_a_process()
    assert (started != "2026-01-31_12-00-00", told) == (True, "False")
