"""The guide to extending: each of its parts is added from outside the package and runs."""

import json
import re
import shlex
from pathlib import Path

import pytest
from processes import said_by

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


MEASURED = "every=1 count=8 reference_count=40 sampler.steps=5".split()
SAMPLED = "n=2 device=cpu".split()
EVALUATED = "n=8 reference_count=40 steps=[5] device=cpu controls=false".split()


def written(section, folder):
    """Write the files of a section; its commands, split into words."""
    commands = []
    for kind, text in BLOCK.findall(SECTIONS[section]):
        if kind == "sh":
            commands = [shlex.split(line) for line in text.splitlines()]
            continue
        name, _, content = text.partition("\n")
        path = folder / name.lstrip("# ")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return commands


def ran(command, added, folder):
    """Run a command of the guide with more words to it."""
    variables = dict(word.split("=") for word in command if re.fullmatch(r"[A-Z_]+=.*", word))
    _, name, *typed = command[len(variables) - 1 :]
    said_by(name.removeprefix("unnoise-"), [*typed, *added], folder, variables)


@pytest.mark.parametrize("section", [name for name in SECTIONS if name != "Metric"])
def test_a_part_is_added_from_outside_the_package(section, tmp_path):
    train, *then = written(section, tmp_path)
    added = list(TINY)
    added += [] if any(word.startswith(("network=", "family=")) for word in train) else UNET
    ran(train, added, tmp_path)
    (metrics,) = (tmp_path / "outputs").glob("*/*/metrics.jsonl")
    run = metrics.parent
    assert len(list(run.glob("checkpoints/step_00000002.ckpt"))) == 1
    for command in then:
        ran([word.replace("outputs/sprites/…", str(run)) for word in command], SAMPLED, tmp_path)
        assert len(list(run.glob("drawn/*/images/*.png"))) == 2


def test_a_metric_measures_while_a_run_trains_and_afterwards(tmp_path):
    train, evaluate = written("Metric", tmp_path)
    measured = [f"callbacks.quality.{each}" for each in MEASURED]
    ran(train, [*TINY, *UNET, *measured], tmp_path)
    (metrics,) = (tmp_path / "outputs").glob("*/*/metrics.jsonl")
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    values = [row["quality/centre_distance_sprites"] for row in rows if "quality/seconds" in row]
    assert len(values) == 2
    assert all(value > 0 for value in values)
    run = [word.replace("outputs/sprites/…", str(metrics.parent)) for word in evaluate]
    ran(run, EVALUATED, tmp_path)
    (scores,) = metrics.parent.glob("evaluation/quality_*.json")
    (score,) = json.loads(scores.read_text())["scores"]
    assert list(score["metrics"]) == ["fd_sprites", "centre_distance_sprites"]
    estimate = score["metrics"]["centre_distance_sprites"]
    assert estimate["value"] == pytest.approx(values[-1], rel=0.5)
    assert estimate["error"] > 0


def test_the_guide_has_every_part_that_the_readme_promises():
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    table = readme.partition("## Extend it")[2].partition("## ")[0]
    promised = re.findall(r"^\| \*\*(.+?)\*\* \|", table, re.M)
    assert [name.lower() for name in SECTIONS] == promised


def test_the_code_of_the_readme_stands_in_the_source():
    root = Path(__file__).parents[1]
    idea = (root / "README.md").read_text().partition("## The idea")[2].partition("## ")[0]
    blocks = [text for kind, text in BLOCK.findall(idea) if kind == "python"]
    sources = [
        [line.strip() for line in path.read_text().splitlines()]
        for path in (root / "src").glob("**/*.py")
    ]
    assert len(blocks) == 4
    for block in blocks:
        lines = [line.strip() for line in block.splitlines()]
        places = [s[i : i + len(lines)] for s in sources for i in range(len(s))]
        assert lines in places, block
