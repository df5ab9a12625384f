"""The dashboards show what they should: what they wrote is read back."""

import json
import os
import re
import signal
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from lightning import Callback
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import experiment
from wandb_file import parts, plain

from unnoise.cli import train
from unnoise.diffusion.samplers import DDIM, Sampler
from unnoise.files import file_digest
from unnoise.runs.checkpoints import checkpoints
from unnoise.training.callbacks.samples import SampleGrid
from unnoise.training.logging import record as loggers
from unnoise.training.logging.tensorboard import TensorBoard
from unnoise.training.logging.wandb import AXIS, WeightsAndBiases
from unnoise.training.loop import fit

QUICK = Sampler(DDIM(), steps=2)
ODD = "quality/fd_garments[-inf,-6]%"
CONFIG = {"data": {"size": 40, "nested": [1, {"deep": None}]}, "seed": 0}


class Talks(Callback):
    """Logs a metric with an odd name, a picture with a caption, and stops by ``act`` at a step."""

    def __init__(self, at=None, act=None):
        self.at, self.act = at, act

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        step = trainer.global_step
        loggers.log_metrics(trainer, {ODD: 1 / step})
        if step == self.at:
            self.act(trainer)


def with_caption(trainer):
    path = Path(trainer.default_root_dir) / "samples" / "step_00000002.png"
    loggers.log_picture(trainer, "asked", path, "DDIM, a red knight")


def interrupt(trainer):
    os.kill(os.getpid(), signal.SIGINT)


def fail(trainer):
    raise RuntimeError("out of luck\nand so on")


def offline(**options):
    return partial(WeightsAndBiases, mode="offline", **options)


def run(run_dir, logger, steps, *talks):
    callbacks = {"samples": SampleGrid(QUICK, QUICK, every=2, count=2), "talks": Talks(*talks)}
    tiny = experiment(callbacks, logger=logger, max_steps=steps)
    tiny.callbacks["checkpoints"] = tiny.callbacks.pop("checkpoints")  # last, as in conf/callbacks
    fit(tiny, CONFIG, run_dir, next(reversed(checkpoints(run_dir)), None))


@pytest.fixture(autouse=True, scope="module")
def secluded(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
            patch.delenv(name, raising=False)
        for name in ("NETRC", "WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
            patch.setenv(name, str(home / name))
        yield


@pytest.fixture(scope="module")
def resumed(tmp_path_factory):
    """A run interrupted at step 3, that failed at 5, and was brought to 8 from there."""
    run_dir = tmp_path_factory.mktemp("runs") / "resumed"
    run_dir.mkdir()
    (run_dir / "config.yaml").write_text("seed: 0\n")
    logger = offline(tags=["a", "b"], notes="why", group="mine", artifact="checkpoint")
    with pytest.raises(SystemExit):
        run(run_dir, logger, 8, 3, interrupt)
    with pytest.raises(RuntimeError):
        run(run_dir, logger, 8, 5, fail)
    run(run_dir, logger, 8, 6, with_caption)
    return run_dir


@pytest.fixture(scope="module")
def read(resumed):
    return parts(resumed)


def test_wandb_says_what_the_run_is(read, resumed):
    for part in read:
        assert (part.run.run_group, part.run.job_type) == ("mine", "train")
        assert (list(part.run.tags), part.run.notes) == (["a", "b"], "why")
        assert part.run.display_name == "tiny resumed"
        assert {key: part.config[key] for key in CONFIG} == CONFIG
        assert part.config["manifest"]["directory"] == str(resumed)
    manifest = json.loads((resumed / "manifest.json").read_text())
    assert (
        read[-1].config["manifest"].items()
        >= {
            k: manifest[k] for k in ("git_commit", "data", "parameters", "world_size", "resumed")
        }.items()
    )
    assert read[-1].summary["run/seconds"] == manifest["seconds"]


def test_wandb_keeps_id_and_axis_over_interruption_failure_and_resume(read, resumed):
    assert {part.run.run_id for part in read} == {(resumed / "wandb_id").read_text()}
    assert [part.exit for part in read] == [[255], [1], [0]]
    steps = [[row[AXIS] for row in part.history] for part in read]
    assert steps == [[1, 2, 3], [4, 5], [6, 7, 8]], "both saved what they had"
    assert all(row["_step"] == row[AXIS] for part in read for row in part.history)
    assert read[0].column(ODD) | read[1].column(ODD) | read[2].column(ODD) == {
        step: 1 / step for step in range(1, 9)
    }
    for part in read:
        defined = {m.glob_name or m.name: m.step_metric for m in part.of["metric"]}
        assert defined["*"] == AXIS


def test_wandb_has_the_numbers_of_metrics_jsonl(read, resumed):
    shown = {}
    for part in read:
        for row in part.history:
            shown.setdefault(row[AXIS], {}).update(row)
    written = {}
    for line in (resumed / "metrics.jsonl").open():
        row = json.loads(line)
        written.setdefault(row.pop("step"), {}).update(row)
    assert list(written) == list(shown) == list(range(1, 9))
    for step, metrics in written.items():
        del metrics["time"]
        assert {name: shown[step][name] for name in metrics} == metrics
    sections = {name.partition("/")[0] for metrics in written.values() for name in metrics}
    assert sections == {"train", "validation", "quality"}


def test_wandb_has_pictures_with_captions_and_the_animation(read, resumed):
    last = read[-1]
    assert last.column("samples._type") == {6: "image-file", 8: "image-file"}
    drawn = {step: f"step {step}, DDIM, 2 steps" for step in (6, 8)}
    assert last.column("samples.caption") == drawn
    assert last.column("denoising.caption") == {8: drawn[8]}
    assert last.column("asked.caption") == {6: "step 6, DDIM, a red knight"}
    assert last.column("denoising._type") == {8: "video-file"}
    pictures = resumed / "samples"
    assert Image.open(read[0].picture("samples", 2)).tobytes() == (
        Image.open(pictures / "step_00000002.png").tobytes()
    )
    animation = (pictures / "denoising.gif").read_bytes()
    assert last.picture("denoising", 8).read_bytes() == animation


def test_a_finished_run_hands_in_its_checkpoint(read, resumed):
    assert ["artifact" in part.of for part in read] == [False, False, True]
    (artifact,) = read[-1].of["artifact"]
    assert (artifact.type, sorted(artifact.aliases)) == ("model", ["latest", "step-8"])
    assert {entry.path for entry in artifact.manifest.contents} == {
        "config.yaml", "manifest.json", "checkpoints/step_00000008.ckpt",
    }  # fmt: skip
    digest = {"step_00000008.ckpt": file_digest(checkpoints(resumed)[-1])}
    assert json.loads(artifact.metadata) == {"step": 8, "digest": digest}


def test_system_metrics_can_be_left_out(tmp_path):
    run(tmp_path, offline(system_metrics=False), 2)
    (part,) = parts(tmp_path)
    assert "stats" not in part.of
    assert "artifact" not in part.of


def test_system_metrics_are_recorded_offline(read):
    assert any("memory_percent" in plain(stats.item) for stats in read[0].of["stats"])


def test_the_jobs_of_a_sweep_are_runs_of_one_group(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    small = "max_steps=1 batch_size=2 validation_images=2 callbacks.samples.count=2 sampler.steps=2"
    arguments = ["-m", "schedule=linear,cosine", "data.size=40", *small.split()]
    monkeypatch.setattr(sys, "argv", ["unnoise-train", *arguments])
    train.main()
    folders = sorted((tmp_path / "outputs" / "sprites").iterdir())
    jobs = [part for folder in folders for part in parts(folder)]
    (group,) = {job.run.run_group for job in jobs}
    assert re.fullmatch("sweep [0-9a-f]{8}", group)
    names = sorted(job.run.display_name[:23] for job in jobs)
    assert names == ["sprites schedule=cosine", "sprites schedule=linear"]
    assert len({job.run.run_id for job in jobs}) == 2
    assert [job.exit for job in jobs] == [[0], [0]]
    assert {job.config["schedule"]["_target_"].rpartition(".")[2] for job in jobs} == {
        "linear", "cosine",
    }  # fmt: skip


def test_what_the_server_has_of_a_killed_run_is_not_sent_again(tmp_path):
    class Run:
        starting_step, rows, dir = 5, [], tmp_path

        def log(self, row, step):
            self.rows.append(step)

    board = WeightsAndBiases(tmp_path, "x", mode="offline")
    board._run = Run()
    for step in (4, 5, 6):
        board.log_metrics({"train/loss": 1.0}, step)
    assert Run.rows == [5, 6]


def test_tensorboard_has_texts_numbers_and_pictures_and_drops_what_a_resume_repeats(tmp_path):
    with pytest.raises(RuntimeError):
        run(tmp_path, TensorBoard, 8, 5, fail)
    run(tmp_path, TensorBoard, 8)
    events = EventAccumulator(str(tmp_path / "tensorboard"), {"tensors": 0, "scalars": 0})
    events.Reload()
    (odd,) = [tag for tag in events.Tags()["scalars"] if tag.startswith("quality")]
    assert [event.step for event in events.Scalars(odd)] == list(range(1, 9))
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]
    losses = {row["step"]: row["train/loss"] for row in rows if "train/loss" in row}
    assert {e.step: e.value for e in events.Scalars("train/loss")} == pytest.approx(losses)
    text = events.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    assert json.loads(text.removeprefix("```json\n").removesuffix("\n```")) == CONFIG
    assert [image.step for image in events.Images("samples")] == [2, 4, 6, 8]
    (tmp_path / "shown.png").write_bytes(events.Images("samples")[-1].encoded_image_string)
    shown = Image.open(tmp_path / "shown.png").convert("RGB")
    drawn = Image.open(tmp_path / "samples" / "step_00000008.png").convert("RGB")
    assert np.array_equal(np.asarray(shown), np.asarray(drawn))
