"""unnoise-evaluate as a user types it: distances between drawn and real pictures."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from untrained import make_run

import unnoise
from unnoise.cli import evaluate
from unnoise.data.sprites import Sprites
from unnoise.evaluation.distances import frechet_distance, moments
from unnoise.evaluation.domain import shipped
from unnoise.evaluation.results import read
from unnoise.extraction import spread

FEW = ("n=12", "reference_count=30", "batch_size=5", "metrics=[fd,recall]", "controls=false")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("quality") / "run", "conditioning=class")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "cache"))


def command(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["unnoise-evaluate", *arguments])
    evaluate.main()


def newest(folder):
    return max(folder.glob("quality_*.json"), key=lambda path: path.stat().st_mtime_ns)


def distance(pixels):
    """Independently of the command: of pictures to 30 real ones."""
    extractor = shipped("sprites")
    real = torch.cat(list(spread(Sprites(60, 40).images("train"), 30)))
    a, b = (moments(extractor(each).pooled) for each in (pixels, real))
    return float(frechet_distance(a, b))


def test_a_grid_measures_what_each_setting_draws(run, monkeypatch, capsys):
    command(monkeypatch, f"run={run}", *FEW, "steps=[2,3]", "averaged=[true,false]", "seeds=[5]",
            "precision=fp32", "controls=true")  # fmt: skip
    scores = read(newest(run / "evaluation"))
    expected = []
    for averaged in (True, False):
        model = unnoise.load(run, averaged=averaged, device="cpu")
        for steps in (2, 3):
            expected.append(distance(model.sample(12, steps=steps, seed=5).pixels))
    assert [s.metrics["fd_sprites"].value for s in scores[:4]] == pytest.approx(expected, rel=1e-3)
    assert [s.pictures["evaluations"] for s in scores[:4]] == [2, 3, 2, 3]
    assert [s.pictures["averaged"] for s in scores[:4]] == [True, True, False, False]
    assert [s.pictures["kind"] for s in scores[4:]] == ["real", "noise"]
    real = torch.cat(list(spread(Sprites(60, 40).images("validation"), 12)))
    assert scores[4].metrics["fd_sprites"].value == pytest.approx(distance(real), rel=1e-6)
    assert {(s.fingerprint.count, s.fingerprint.extractor[:7]) for s in scores} == {(12, "sprites")}
    rows = list(csv.DictReader(newest(run / "evaluation").with_suffix(".csv").open()))
    assert [float(row["fd_sprites"]) for row in rows] == [
        score.metrics["fd_sprites"].value for score in scores
    ]
    assert newest(run / "evaluation").with_suffix(".png").exists()
    assert "ddim 3, last weights" in capsys.readouterr().out


def test_what_is_drawn_is_not_drawn_again(run, monkeypatch):
    command(monkeypatch, f"run={run}", *FEW, "steps=[2]", "seeds=[6]")
    before = read(newest(run / "evaluation"))
    monkeypatch.setattr(unnoise.api.TrainedModel, "sample", pytest.fail)
    command(monkeypatch, f"run={run}", *FEW, "steps=[2]", "seeds=[6]")
    assert read(newest(run / "evaluation")) == before


def test_pictures_from_elsewhere_are_scored_alike(run, monkeypatch, tmp_path):
    pixels = unnoise.load(run, device="cpu").sample(12, steps=2).pixels
    np.savez(tmp_path / "theirs.npz", pixels.permute(0, 2, 3, 1).numpy())
    command(monkeypatch, "images=theirs.npz", "data=sprites", "data.size=60",
            "data.validation_size=40", *FEW)  # fmt: skip
    (score,) = read(newest(tmp_path / "outputs" / "evaluation"))
    assert score.metrics["fd_sprites"].value == pytest.approx(distance(pixels), rel=1e-6)
    assert score.pictures == {"kind": "given", "images": "theirs.npz"}


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ([], "run  give either a run, as run=…, or pictures"),
        (["run={run}", "images=x.npz"], "run  give either a run"),
        (["images=x.npz", "data=sprites"], "images  there is no x.npz"),
        (["images={run}"], "data  missing: what pictures are held against"),
        (["run=nowhere"], "run  there is no run or checkpoint nowhere"),
        (["run={run}", "steps=[2]", "evaluations=[4]"], "evaluations  steps are given too"),
        (["run={run}", "steps=[]"], "steps  is empty"),
        (["run={run}", "steps=[2000]"], "samplers  ddim 2000: 2000 steps asked of a schedule"),
        (["run={run}", "grid=samplers", "sampler=ddim"], "sampler  the grid has its samplers"),
        (["run={run}", "checkpoints=[5]"], "no checkpoint of step 5, but of 1"),
        (["run={run}", "metrics=[fid]"], "metrics"),
        (["run={run}", "extractor=garment"], "garment"),
        (["run={run}", "guidance=[-1]"], "guidance.0  must be >= 0"),
        (["run={run}", "n=1"], "n  must be >= 2"),
    ],
)
def test_mistakes_are_told_before_anything_is_drawn(overrides, told, run, monkeypatch, capsys):
    monkeypatch.setattr(unnoise.api.TrainedModel, "sample", pytest.fail)
    with pytest.raises(SystemExit) as stop:
        command(monkeypatch, *(each.format(run=run) for each in overrides))
    assert stop.value.code == 2
    assert told in " ".join(capsys.readouterr().err.split("\n"))


@pytest.mark.slow
def test_two_processes_give_the_numbers_of_one(run, monkeypatch, tmp_path):
    shared = make_run(tmp_path / "shared", "conditioning=class")
    command(monkeypatch, f"run={run}", *FEW, "steps=[2]", "seeds=[7]", "n=13")
    bin = Path(sys.executable).parent
    subprocess.run(
        [bin / "torchrun", "--standalone", "--nproc-per-node=2", "--no-python",
         bin / "unnoise-evaluate", f"run={shared}", *FEW, "steps=[2]", "seeds=[7]", "n=13"],
        check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=300,
    )  # fmt: skip
    (one,), (two,) = (read(newest(each / "evaluation")) for each in (run, shared))
    assert two.metrics == one.metrics
    drawn = {path.stem for path in (shared / "evaluation" / "drawn").glob("*/0*.npz")}
    assert drawn == {"000000-000004", "000005-000009", "000010-000012"}
    assert json.loads(newest(shared / "evaluation").read_text())["measure"] == "quality"
