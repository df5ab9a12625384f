"""The guide for those who come from elsewhere: every command of it composes."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unnoise.config.compose import check_command_line
from unnoise.config.problems import errors_in
from unnoise.training.check import problems_of

GUIDE = (Path(__file__).parents[1] / "notebooks" / "guide" / "coming_from.md").read_text()
COMMANDS = list(dict.fromkeys(re.findall(r"`(unnoise-[a-z]+ [^`]+)`", GUIDE)))
ELSEWHERE = ("trainer=ddp", "trainer=gpu", "data=hugging_face", "logger=wandb")
"""What this machine may lack: composed, but not built."""


def photos(folder):
    for kind in ("cat", "dog"):
        (folder / "photos" / kind).mkdir(parents=True)
        for k in range(40):
            pixels = np.random.default_rng(k).integers(0, 255, (64, 64, 3), np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / kind / f"{k}.png")


def parts(command):
    name, *words = shlex.split(command)
    return name.removeprefix("unnoise-"), words


@pytest.mark.parametrize("command", [each for each in COMMANDS if "report" not in each])
def test_every_command_composes(command, tmp_path, monkeypatch):
    photos(tmp_path)
    monkeypatch.chdir(tmp_path)
    name, words = parts(command)
    typed = [word for word in words if not word.startswith("-") and word != "job"]
    overrides = [word.replace("…", "a_run") for word in typed]
    config, found = check_command_line(name, overrides, sweep="-m" in words)
    assert found == []
    if name == "train" and not any(each in words for each in ELSEWHERE):
        assert errors_in(problems_of(config)) == []
