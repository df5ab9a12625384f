"""What measures or draws by the data of a run compares them with those that it was trained on."""

import importlib
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from untrained import make_run

from unnoise.data.content import facts, keep
from unnoise.models.trained import TrainedModel

SIZE = "data.image_size=16"


def made(root):
    """Ten pictures of each of two classes in each split."""
    rng = np.random.default_rng(0)
    for part in ("train", "validation"):
        for name in ("cat", "dog"):
            (root / part / name).mkdir(parents=True)
            for k in range(10):
                pixels = rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{k}.png")
    return root


def five_more(root):
    """Change what is there."""
    for k in range(5):
        for part in ("train", "validation"):
            Image.new("RGB", (16, 16), (k, 9, 0)).save(root / part / "cat" / f"more{k}.png")


def shifted(root):
    """A class that comes first."""
    for part in ("train", "validation"):
        shutil.copytree(root / part / "cat", root / part / "bird")


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run of pictures by pictures, whose checkpoint says what its data hold."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "cache"))
    made(tmp_path / "data")
    folder = make_run(
        tmp_path / "run",
        "data=image_folder",
        "data.root=data",
        SIZE,
        "conditioning=sketch",
        "sampler.steps=2",
        "schedule.T=40",  # of 1000 levels the ODE of an untrained network takes ten times as long
    )
    source = TrainedModel.load(folder).source
    splits = {split: source.images(split) for split in ("train", "validation")}
    path = folder / "checkpoints" / "step_00000001.ckpt"
    content = torch.load(path, weights_only=True)
    torch.save(content | {"data": facts(source.class_names(), splits)}, path)
    keep(folder / "content.json.gz", splits)
    return folder


def command(monkeypatch, name, *words):
    monkeypatch.setattr(sys, "argv", [f"unnoise-{name}", *words])
    importlib.import_module(f"unnoise.cli.{name}").main()


FEW = ("n=6", "reference_count=10", "metrics=[fd]", "controls=false", "extractor=sprites")
BY_DATA = {
    "quality": ("evaluate", *FEW),
    "likelihood": ("evaluate", "measure=likelihood", "n=2", "steps=3"),
    "sample": ("sample", "n=2", "singles=false"),
    "figure": (
        "figure",
        "figure=noise",
        "figure.pictures=2",
        "figure.variances=[none]",
        "sampler=ddim",
        "sampler.steps=2",
    ),
}


def written():
    return sorted(
        path for path in Path().rglob("*") if path.is_file() and "cache" not in path.parts
    )


@pytest.mark.parametrize("words", BY_DATA.values(), ids=BY_DATA)
@pytest.mark.parametrize("change", [five_more, shifted])
def test_other_data_are_refused_in_a_line(words, change, run, monkeypatch, capsys):
    change(Path("data"))
    before = written()
    with pytest.raises(SystemExit) as stop:
        command(monkeypatch, *words, f"run={run}", "device=cpu")
    assert stop.value.code == 2
    (line,) = (each for each in capsys.readouterr().err.splitlines() if each.startswith("data:"))
    assert "run/checkpoints/step_00000001.ckpt was trained on others: " in line
    assert line.endswith("; data_changed=accept takes these")
    if change is five_more:
        assert "had 20 pictures, now 25 (5 new: " in line
        assert "/cat/more0.png, " in line
    else:
        assert "label 0 meant cat, and would mean bird" in line
    assert written() == before
    command(monkeypatch, *words, f"run={run}", "device=cpu", "data_changed=accept")
    assert written() > before


@pytest.mark.parametrize("words", BY_DATA.values(), ids=BY_DATA)
def test_the_same_data_are_taken(words, run, monkeypatch):
    command(monkeypatch, *words, f"run={run}", "device=cpu")


@pytest.mark.parametrize("name", ["quality", "likelihood", "sample"])
def test_the_same_data_elsewhere_are_taken(name, run, monkeypatch, tmp_path):
    (tmp_path / "data").rename(tmp_path / "moved")
    words = (*BY_DATA[name], f"run={run}", "device=cpu", "data_root=moved")
    command(monkeypatch, *words)


def test_a_measurement_on_other_data_stands_beside_that_on_the_runs(run, monkeypatch):
    words = (*BY_DATA["likelihood"], f"run={run}", "device=cpu")
    command(monkeypatch, *words)
    five_more(Path("data"))
    command(monkeypatch, *words, "data_changed=accept")
    results = [json.loads(path.read_text()) for path in run.glob("evaluation/likelihood_*.json")]
    assert sorted(result.get("data_changed", "") for result in results) == ["", "accept"]


def test_data_named_on_the_command_line_are_the_users_choice(run, monkeypatch):
    five_more(Path("data"))
    words = ("data=image_folder", "data.root=data", SIZE)
    command(monkeypatch, *BY_DATA["figure"], f"run={run}", "device=cpu", *words)
    assert (run / "figures" / "noise.png").exists()


def test_a_checkpoint_without_its_run_still_tells_the_numbers(run, tmp_path):
    alone = shutil.copy(run / "checkpoints" / "step_00000001.ckpt", tmp_path / "alone.ckpt")
    assert len(TrainedModel.load(alone).validation) == 20
    five_more(Path("data"))
    with pytest.raises(ValueError, match=r"validation had 20 pictures, now 25; data_changed=acc"):
        _ = TrainedModel.load(alone).validation
    assert len(TrainedModel.load(alone, data_changed="accept").validation) == 25


def test_an_older_run_is_compared_by_what_its_manifest_says(run):
    path = run / "checkpoints" / "step_00000001.ckpt"
    content = torch.load(path, weights_only=True)
    (run / "manifest.json").write_text(json.dumps({"data": content.pop("data")}))
    torch.save(content, path)
    assert TrainedModel.load(run).class_names == ("cat", "dog")
    five_more(Path("data"))
    with pytest.raises(ValueError, match="train had 20 pictures, now 25"):
        TrainedModel.load(run).images("train")
    (run / "manifest.json").unlink()
    assert len(TrainedModel.load(run).images("train")) == 25
