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
from PIL import Image
from untrained import make_run

import unnoise
from unnoise.cli import evaluate
from unnoise.data.sprites import Sprites
from unnoise.evaluation.distances import frechet_distance, moments
from unnoise.evaluation.extractors.domain import shipped
from unnoise.evaluation.measure import load_once
from unnoise.evaluation.reference import spread
from unnoise.evaluation.results import Samples, read

FEW = ("n=12", "reference_count=30", "batch_size=5", "metrics=[fd,recall]", "controls=false")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("quality") / "run", "conditioning=class")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("plain") / "run")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "cache"))


def command(monkeypatch, *arguments):
    load_once.cache_clear()  # what a process of its own begins with
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
    assert [s.samples.evaluations for s in scores[:4]] == [2, 3, 2, 3]
    assert [s.samples.averaged for s in scores[:4]] == [True, True, False, False]
    assert [s.samples.kind for s in scores[4:]] == ["real", "noise"]
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
    monkeypatch.setattr("unnoise.models.trained.TrainedModel.draw", pytest.fail)
    command(monkeypatch, f"run={run}", *FEW, "steps=[2]", "seeds=[6]")
    assert read(newest(run / "evaluation")) == before


def test_pictures_from_elsewhere_are_scored_alike(run, monkeypatch, tmp_path):
    pixels = unnoise.load(run, device="cpu").sample(12, steps=2).pixels
    np.savez(tmp_path / "theirs.npz", pixels.permute(0, 2, 3, 1).numpy())
    command(monkeypatch, "images=theirs.npz", "data=sprites", "data.size=60",
            "data.validation_size=40", *FEW)  # fmt: skip
    (score,) = read(newest(tmp_path / "outputs" / "evaluation"))
    assert score.metrics["fd_sprites"].value == pytest.approx(distance(pixels), rel=1e-6)
    assert score.samples == Samples(kind="given", source="theirs.npz")


def test_controls_are_as_many_as_the_given_pictures(monkeypatch, tmp_path):
    np.save(tmp_path / "theirs.npy", np.zeros((9, 16, 16, 3), np.uint8))
    command(monkeypatch, "images=theirs.npy", "data=sprites", "data.size=60",
            "data.validation_size=40", *FEW, "controls=true")  # fmt: skip
    scores = read(newest(tmp_path / "outputs" / "evaluation"))
    assert [score.samples.kind for score in scores] == ["given", "real", "noise"]
    assert len({score.fingerprint for score in scores}) == 1
    assert scores[0].fingerprint.count == 9


def test_pictures_of_another_size_are_no_match(monkeypatch, tmp_path, capsys):
    np.save(tmp_path / "theirs.npy", np.zeros((9, 32, 32, 3), np.uint8))
    with pytest.raises(SystemExit):
        command(monkeypatch, "images=theirs.npy", "data=sprites", *FEW)
    assert "theirs.npy: its pictures are 32 × 32, the real ones 16 × 16" in capsys.readouterr().err


def test_a_checkpoint_that_trained_on_under_its_name_is_drawn_anew(monkeypatch, tmp_path):
    for seed in (0, 1):
        made = make_run(tmp_path / str(seed), "conditioning=class", seed=seed)
        file = made / "checkpoints" / "step_00000001.ckpt"
        (tmp_path / "mine.ckpt").write_bytes(file.read_bytes())
        command(monkeypatch, "run=mine.ckpt", *FEW, "steps=[2]", "precision=fp32")
        (score,) = read(newest(tmp_path / "evaluation"))
        pixels = unnoise.load(made, device="cpu").sample(12, steps=2).pixels
        assert score.metrics["fd_sprites"].value == pytest.approx(distance(pixels), rel=1e-3)
        assert score.samples.step is None
    files = list((tmp_path / "evaluation").glob("quality_*.json"))
    assert len(files) == 2, "the number of the first is lost"


def test_conditions_are_those_of_the_data_where_they_are_now(monkeypatch, tmp_path):
    made = tmp_path / "made"
    for number in range(30):
        made.mkdir(exist_ok=True)
        Image.new("RGB", (16, 16), (8 * number, 0, 255 - 8 * number)).save(made / f"{number}.png")
    run = make_run(
        tmp_path / "run", "data=image_folder", "data.root=made", "data.image_size=16",
        "conditioning=sketch",
    )  # fmt: skip
    made.rename(tmp_path / "moved")
    few = (*FEW, "extractor=sprites", "steps=[2]", "reference_count=20", "data_root=moved")
    command(monkeypatch, f"run={run}", *few)
    (first,) = read(newest(run / "evaluation"))
    for number in range(30):
        Image.new("RGB", (16, 16), (0, 8 * number, 0)).save(tmp_path / "moved" / f"{number}.png")
    command(monkeypatch, f"run={run}", *few)
    (second,) = read(newest(run / "evaluation"))
    assert first.samples.prompts != second.samples.prompts
    assert len(list((run / "evaluation" / "drawn").iterdir())) == 2


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ([], "run  give either a run, as run=…, or pictures"),
        (["run={run}", "images=x.npz"], "run  give either a run"),
        (["images=x.npz", "data=sprites"], "images  there is no x.npz"),
        (["images={run}"], "data  missing: what they are compared with"),
        (["run=nowhere"], "run  there is no run or checkpoint nowhere"),
        (["run={run}", "steps=[2]", "evaluations=[4]"], "evaluations  steps are given too"),
        (["run={run}", "steps=[]"], "steps  is empty"),
        (["run={run}", "steps=[2000]"], "samplers  ddim 2000: 2000 steps with a schedule"),
        (["run={run}", "grid=samplers", "sampler=ddim"], "sampler  the grid has its own"),
        (["run={run}", "checkpoints=[5]"], "no checkpoint of step 5, but of 1"),
        (
            ["run={run}", "metrics=[fid]"],
            "metrics  there is no metric fid; did you mean 'fd'?",
        ),
        (["run={run}", "metrics=[recal]"], "there is no metric recal; did you mean 'recall'?"),
        (["run={run}", "metrics=[]"], "metrics  is empty"),
        (["run={run}", "extractor=garment"], "garment"),
        (["run={run}", "guidance=[-1]"], "guidance.0  must be >= 0"),
        (
            ["run={run}", "guidance=[1,2]"],
            "guidance 2 needs something to guide by",
        ),
        (
            ["run={run}", "sampler=ddpm", "sampler.stepper.variance=learned"],
            "ddpm: the run did not",
        ),
        (["run={run}/checkpoints/step_00000001.ckpt", "n=5"], "n  must be > 5"),
        (["run={run}", "reference_count=5"], "reference_count  must be > 5"),
        (["run={run}", "batch_size=0"], "batch_size  must be >= 1"),
        (["run={run}", "checkpoints=0"], "checkpoints"),
        (["run={run}", "averaged=true"], "averaged"),
        (["run={run}", "averaged=[true,0.1]"], "the run kept no averages"),
        (["run={run}", "reference=test"], "reference"),
        (["run={run}", "resize=bicubic"], "resize"),
        (["run={run}", "precision=fp16"], "precision"),
        (["run={run}", "seeds=[-1]"], "seeds.0  must be >= 0"),
        (["run={run}", "device=tpu9"], "device  tpu9 cannot be used here"),
        (
            ["run={run}", "data_root=nowhere"],
            "data_root  the run's data are not read from",
        ),
    ],
)
def test_mistakes_are_told_before_anything_is_drawn(
    overrides, told, run, plain, monkeypatch, capsys
):
    run = plain if "guidance=[1,2]" in overrides else run
    monkeypatch.setattr("unnoise.models.trained.TrainedModel.draw", pytest.fail)
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
