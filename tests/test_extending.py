"""The guide to extending: each of its parts is added from outside the package and runs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

GUIDE = (Path(__file__).parents[1] / "notebooks" / "guide" / "extending.md").read_text()
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", GUIDE, re.M | re.S))
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.M | re.S)
TINY = (
    "data.size=60 data.validation_size=40 batch_size=8 max_steps=2 validation_images=8 "
    "trainer=cpu logger=none precision=fp32 callbacks.samples.count=4"
).split()
UNET = (
    "network.channels=8 network.multipliers=[1,1] network.blocks=1 network.head_size=null "
    "network.attention_resolutions=[] sampler.steps=5"
).split()


def blocks(section):
    """The files of a section by name, and its command."""
    found = BLOCK.findall(SECTIONS[section])
    files = {text.split("\n")[0].lstrip("# "): text for kind, text in found if kind != "sh"}
    (command,) = (text for kind, text in found if kind == "sh")
    return files, command.split()


@pytest.mark.parametrize("section", SECTIONS)
def test_a_part_is_added_from_outside_the_package(section, tmp_path):
    files, command = blocks(section)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    variables = dict(word.split("=") for word in command if re.fullmatch(r"[A-Z_]+=.*", word))
    at = command.index("unnoise-train")
    typed = [*command[at + 1 :], *TINY]
    typed += [] if any(word.startswith(("network=", "family=")) for word in typed) else UNET
    ours = os.environ.get("PYTHONPATH", "")
    path = os.pathsep.join([str(tmp_path), *([ours] if ours else [])])
    program = "from unnoise.cli.train import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, *typed],
        cwd=tmp_path,
        env=os.environ | variables | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = (tmp_path / "outputs").glob("*/*/metrics.jsonl")
    assert len(list(run.parent.glob("checkpoints/step_00000002.ckpt"))) == 1


def test_the_guide_has_every_part_that_the_readme_promises():
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    table = readme.partition("## Extend it")[2].partition("## ")[0]
    promised = re.findall(r"^\| \*\*(.+?)\*\* \|", table, re.M)
    assert [name.lower() for name in SECTIONS] == promised
