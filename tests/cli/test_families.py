"""unnoise-evaluate grid=…: runs that are trained where they are missing, and compared."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from unnoise.cli import evaluate, timing, wanted
from unnoise.cli.train import main as train
from unnoise.config.compose import CONF, check_command_line
from unnoise.evaluation import comparison
from unnoise.evaluation.comparison import wanted_runs
from unnoise.evaluation.results import read
from unnoise.runs.checkpoints import find_checkpoint
from unnoise.runs.wanted import Spent, Wanted, spent, spent_in_all

FEW = "data.size=60 data.validation_size=40 batch_size=2 validation_images=2 logger=none".split()
RUNS = {
    "VAE": {"train": ["experiment=sprites_vae", "name=vae", "network.channels=4", *FEW]},
    "GAN": {
        "train": [
            *["experiment=sprites_gan", "name=gan", "network.channels=4"],
            *["discriminator.channels=4", *FEW],
        ],
        "scaled": {"warmup_steps": 0.5},
    },
}
GRID = {
    "defaults": ["single"],
    "_target_": "unnoise.evaluation.comparison.Comparison",
    "minutes": [0.1, 0.2],
    "likelihood": 4,
    "trained_runs": None,
    "runs": RUNS,
}


@pytest.fixture
def trainings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "conf" / "grid").mkdir(parents=True)
    text = "# @package _global_\n" + yaml.safe_dump(GRID, sort_keys=False)
    (tmp_path / "conf" / "grid" / "two.yaml").write_text(text)
    noted = []

    def in_this_process(overrides, folders):
        noted.append(overrides)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["unnoise-train", *overrides])
            train()

    monkeypatch.setattr(wanted, "train", in_this_process)
    monkeypatch.setattr(timing, "timed", lambda *_: Spent(2, 6.0, "processor s"))
    return noted


def command(monkeypatch, *arguments):
    few = ["grid=two", "n=20", "reference_count=30", "batch_size=10", "precision=fp32"]
    given = [*few, "--config-dir=conf", *arguments]
    monkeypatch.setattr(sys, "argv", ["unnoise-evaluate", *given])
    evaluate.main()


def test_what_is_missing_is_trained_for_equal_times_and_compared(
    trainings, monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(comparison, "SHOWN", 50)  # more than there are
    command(monkeypatch)
    steps = [each for run in trainings for each in run if each.startswith("max_steps")]
    assert steps == ["max_steps=2", "max_steps=2", "max_steps=4", "max_steps=4"]
    assert [each for each in trainings[3] if each.startswith("warmup")] == ["warmup_steps=2"]
    (path,) = (tmp_path / "outputs" / "evaluation").glob("comparison*.json")
    scores = read(path)
    names = ["VAE, 0.1 min", "GAN, 0.1 min", "VAE, 0.2 min", "GAN, 0.2 min"]
    assert [score.name for score in scores] == [*names, "real pictures", "noise"]
    vae, gan, *_, real, noise = scores
    assert vae.samples.evaluations == 1
    assert vae.samples.seconds > 0
    assert vae.samples.training > 0
    assert vae.metrics["bits_per_dim"].value > 0
    assert "bits_per_dim" not in gan.metrics
    assert real.metrics["recognised"].value == 1
    assert gan.metrics["modes"].value == 0
    assert "modes" not in noise.metrics
    assert {score.fingerprint for score in scores} == {vae.fingerprint}
    printed = capsys.readouterr().out
    assert "coverage" in printed
    assert max(map(len, printed.split("20 pictures against")[1].splitlines())) <= 100
    for name in (path.with_suffix(".png"), path.with_name(f"{path.stem}_pictures.png")):
        assert Image.open(name).width > 500
    request = json.loads(path.read_text())["request"]
    assert request["runs"]["VAE"]["train"] == RUNS["VAE"]["train"]
    trainings.clear()
    command(monkeypatch)
    assert not trainings, "all are there"
    files = [str(find_checkpoint(Path(score.samples.source))) for score in scores[:4]]
    command(monkeypatch, f"trained_runs=[{','.join(files)}]", "metrics=[fd,kid]", "controls=false")
    assert "kid" in capsys.readouterr().out
    (again,) = {*path.parent.glob("comparison*.json")} - {path}
    for one, other in zip(scores[:4], read(again), strict=True):
        assert other.metrics["fd_sprites"] == one.metrics["fd_sprites"]
        assert other.samples.training == one.samples.training


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("runs.GAN.scaled.warmup_steps=2", "GAN.scaled.warmup_steps"),
        ("runs.VAE.train=[experiment=sprites_vea]", "runs.VAE"),
        ("+runs.VAE.share=many", "VAE.share"),
        ("minutes=[]", "minutes"),
        ("minutes=[inf]", "minutes"),
        ("run=outputs/x", "a comparison has runs of its own"),
        ("trained_runs=[a,b]", "4 runs are compared, not 2"),
        ("sampler=ddim", "sampler"),
        ("averaged=[false]", "averaged"),
        ("checkpoints=all", "checkpoints"),
        ("seeds=[0,1]", "a comparison draws by one, not by 2"),
        ("likelihood=1", "1 has no error"),
        ("metrics=[fdd]", "there is no metric fdd"),
        ("extractor=nothing", "there is no extractor nothing"),
        (
            "runs.GAN.train=['experiment=sprites_gan','data.size=70']",
            "data.size is 70 in GAN, but 60 in VAE",
        ),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_trained(
    override, told, trainings, monkeypatch, capsys
):
    with pytest.raises(SystemExit) as end:
        command(monkeypatch, override)
    assert end.value.code == 2
    assert told in capsys.readouterr().err
    assert not trainings


def test_a_run_that_starts_from_another_gets_its_share(trainings, monkeypatch):
    noted = []
    monkeypatch.setattr(timing, "find_or_train", lambda way, *_: noted.append(way) or "first/run")
    first = {"train": ["experiment=sprites_flow"]}
    (each,) = wanted_runs({"x": {"train": ["a=1"], "first": first, "share": 0.25}}).values()
    assert isinstance(each.first, Wanted)
    timing.trained_within(each, 120.0, ["seed=1"], [], "why")
    assert noted == [
        ["experiment=sprites_flow", "seed=1", "max_steps=30"],
        ["a=1", "seed=1", "from=first/run", "max_steps=10"],
    ]


def test_what_training_took_is_read_from_its_log(tmp_path):
    rows = [
        {"step": 1, "train/images_per_second": 4.0, "train/processor_seconds": 9.0},
        {"step": 3, "validation/loss": 1.0},
        {"step": 5, "train/images_per_second": 8.0, "train/processor_seconds": 6.0},
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows) + '{"step": 9, "tr'
    (tmp_path / "metrics.jsonl").write_text(text)
    assert spent(tmp_path, batch_size=2) == Spent(5, 15.0, "processor s")
    assert spent(tmp_path, batch_size=2, after=1).rate == 1.5
    (tmp_path / "manifest.json").write_text('{"device": "cuda:0"}')
    assert spent(tmp_path, batch_size=2, after=1) == Spent(4, 1.0, "s")
    assert spent(tmp_path / "none", batch_size=2) is None


@pytest.mark.parametrize("resumed", [[0], [3], [4, 3], [3, 3]])
def test_steps_before_a_stop_whose_time_was_not_logged_count_as_those_after_it(resumed, tmp_path):
    rows = [
        {"step": 1, "train/images_per_second": 4.0, "train/processor_seconds": 9.0},
        {"step": 5, "train/images_per_second": 8.0, "train/processor_seconds": 6.0},
        {"step": 9, "train/images_per_second": 8.0, "train/processor_seconds": 6.0},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "manifest.json").write_text(json.dumps({"resumed": [{"step": s} for s in resumed]}))
    lost = 0 if resumed == [0] else 2
    assert spent(tmp_path, batch_size=2) == Spent(9, 21.0 + 3 * lost, "processor s")


@pytest.mark.parametrize("grid", ["families", "garments", "latents"])
def test_all_runs_of_a_shipped_grid_can_be_trained(grid, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config, _ = check_command_line("evaluate", [f"grid={grid}"])
    data = {}
    for name, each in wanted_runs(config["runs"]).items():
        run, wrong = wanted.checked(each, ["precision=fp32"], [])
        assert wrong == [], name
        data[name] = run["data"]
    assert [*comparison.other_data(data)] == []


def test_an_autoencoder_that_is_not_given_is_trained_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trained = []
    monkeypatch.setattr(timing, "timed", lambda *_: Spent(2, 6.0, "processor s"))
    monkeypatch.setattr(
        timing, "find_or_train", lambda run, *_: trained.append(run) or tmp_path / str(len(trained))
    )
    timing.trained_within(Wanted(train=["experiment=scenes_sd"]), 60, ["seed=1"], [], "mine")
    first, own = trained
    assert first == ["experiment=scenes_kl", "seed=1"]
    assert f"autoencoder={tmp_path / '1'}" in own


def test_a_training_ends_with_the_command_that_needs_it(tmp_path):
    """Else it would go on unseen, and a second one beside it when the command comes again."""
    stand_in = tmp_path / "python"
    stand_in.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/new\nmv {tmp_path}/new {tmp_path}/pid\n"
                        "exec sleep 60\n")  # fmt: skip
    stand_in.chmod(0o755)
    code = "import sys; from unnoise.cli import wanted; sys.executable = sys.argv[1]; "
    code += "wanted.train([], [])"
    with subprocess.Popen([sys.executable, "-c", code, str(stand_in)]) as command:
        while not (tmp_path / "pid").exists():
            assert command.poll() is None
            time.sleep(0.05)
        command.terminate()
        assert command.wait() == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_step_is_timed_once_for_a_config(tmp_path, monkeypatch):
    """Another config under the same name counts; what others note meanwhile stays."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    mine, timings = tmp_path / "conf" / "experiment" / "mine.yaml", []
    file = tmp_path / "outputs" / "timed.json"

    def written(batch_size):
        mine.write_text(f"# @package _global_\nbatch_size: {batch_size}\n")

    def measured(overrides, folders):
        timings.append(overrides)
        file.parent.mkdir(exist_ok=True)
        kept = json.loads(file.read_text()) if file.exists() else {}
        file.write_text(json.dumps(kept | {f"other {len(timings)}": {}}))
        return Spent(2, float(len(timings)), "s")

    monkeypatch.setattr(timing, "_time", measured)
    way = ["experiment=mine"], ["conf"]
    written(8)
    assert [timing.timed(*way).seconds for _ in range(2)] == [1, 1]
    written(4)
    assert [timing.timed(*way).seconds for _ in range(2)] == [2, 2]
    kept = json.loads(file.read_text())
    assert len(kept) == 3
    (entry,) = (each for each in kept.values() if each)
    assert entry.pop("config")  # an older file does not have it
    file.write_text(json.dumps(kept))
    assert timing.timed(*way).seconds == 2


def test_training_is_that_of_the_run_it_started_from_too(tmp_path):
    row = {"step": 5, "train/images_per_second": 1.0, "train/processor_seconds": 3.0}
    for name in ("first", "second"):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
        (tmp_path / name / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    first, plain = tmp_path / "first", {"batch_size": 2}
    start = {"run": str(first / "checkpoints" / "step_00000005.ckpt")}
    config = plain | {"initial": start}
    assert spent_in_all(first, plain) == 3
    assert spent_in_all(tmp_path / "second", config) is None  # nobody knows
    (first / "config.yaml").write_text(yaml.safe_dump(plain | {"initial": None}))
    assert spent_in_all(tmp_path / "second", config) == 6


@pytest.mark.parametrize("bf16", [False, True])
def test_the_time_of_a_picture_is_in_the_precision_that_draws(bf16):
    seen = []

    class Trained:
        def draw(self, n, **_):
            seen.append((n, torch.is_autocast_enabled("cpu")))

    class Few:
        n, batch_size, torch_device = 6, 4, torch.device("cpu")

    assert comparison.Comparison._seconds(Few(), Trained(), bf16) >= 0
    assert seen == [(1, bf16), (4, bf16)]


def test_the_commands_of_the_guide_can_be_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    guide = (CONF.parent / "notebooks" / "guide" / "families.md").read_text()
    lines = [line for line in guide.splitlines() if line.startswith("unnoise-evaluate grid=")]
    for line in lines:
        config, found = check_command_line(
            "evaluate", shlex.split(line.replace("…", "X"), comments=True)[1:]
        )
        assert found == [], line
        assert wanted_runs(config["runs"])
    assert len(lines) == 4
    assert config["runs"]["mine"] == {"train": ["experiment=mine", "name=mine"]}
