"""A run that has no room for one checkpoint is not begun."""

import shutil
from collections import namedtuple

import pytest
from untrained import TINY

from unnoise.config.compose import check_command_line
from unnoise.config.problems import ConfigError
from unnoise.training.start import prepared, start

Usage = namedtuple("Usage", "total used free")
LINE = [*TINY, "data.size=60", "data.validation_size=40", "trainer=cpu", "logger=none"]


def test_the_least_room_is_that_of_weights_and_their_averages(tmp_path, monkeypatch):
    config, found = check_command_line("train", [*LINE, "max_steps=1"])
    assert not found
    parameters = sum(p.numel() for p in prepared(config).network.parameters())
    free = 8 * parameters - 1
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 0, free))
    with pytest.raises(ConfigError, match="a checkpoint takes") as refused:
        start(config, tmp_path / "new" / "run")
    assert f"{8 * parameters / 1e6:.1f} MB" in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_that_much_is_less_than_a_checkpoint_takes(tmp_path, monkeypatch):
    config, _ = check_command_line("train", [*LINE, "max_steps=1", "~callbacks.samples"])
    parameters = sum(p.numel() for p in prepared(config).network.parameters())
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 0, 8 * parameters))
    start(config, tmp_path / "run")
    first = tmp_path / "run" / "checkpoints" / "step_00000000.ckpt"
    assert first.stat().st_size >= 8 * parameters


def test_what_will_be_done_is_said_before_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    config, _ = check_command_line("train", [*LINE, "max_steps=1", "precision=fp32"])
    parameters = sum(p.numel() for p in prepared(config).network.parameters())
    start(config, tmp_path / "run")
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"tiny: 1 steps of 8 images, {parameters:,} parameters, fp32 on CPU"
    assert said[1] == "  run"
