"""What a run tells: numbers that are right, pictures that are the averaged model's."""

import json
import re
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning import Callback
from lightning.pytorch.loggers.logger import DummyLogger
from PIL import Image
from tiny import experiment

from unnoise.data.pixels import to_signal
from unnoise.data.sprites import CLASSES
from unnoise.diffusion.denoiser import VPrediction
from unnoise.diffusion.guidance import Guidance
from unnoise.diffusion.noise import Noise
from unnoise.diffusion.samplers import DDIM, Sampler
from unnoise.diffusion.schedules import EDMSchedule, RectifiedFlow, linear
from unnoise.models.diffusion import DiffusionModel
from unnoise.networks.conditioning import Edges, PictureConditioner
from unnoise.networks.unet import UNet
from unnoise.report.figures.forward import strip
from unnoise.report.sheets import beside, grid, table
from unnoise.runs.checkpoints import checkpoints
from unnoise.training.callbacks.samples import ForwardProcess, SampleGrid
from unnoise.training.loop import fit

SDE = Sampler(DDIM(eta=1.0), steps=2)


class Spy(Callback):
    """Keeps what each step gave, and the trained module."""

    def __init__(self):
        self.outputs = []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.outputs.append({k: v.detach().clone() for k, v in outputs.items()})
        self.module = module


def rows(run_dir):
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").open()]


def test_logged_means_are_the_means_of_the_samples(tmp_path):
    spy = Spy()
    fit(experiment({"spy": spy}, max_steps=4), {}, tmp_path, None)
    logged = {row["step"]: row for row in rows(tmp_path) if "train/loss" in row}
    assert list(logged) == [1, 2, 4]
    last = spy.outputs[2:4]
    loss = torch.cat([o["per_sample"] for o in last])
    u = torch.cat([o["u"] for o in last])
    assert logged[4]["train/loss"] == pytest.approx(loss.mean().item(), rel=1e-5)
    for q in range(4):
        here = loss[(u >= q / 4) & (u < (q + 1) / 4)]
        key = f"train/loss_t{25 * q}-{25 * q + 25}%"
        assert (key in logged[4]) == (len(here) > 0)
        if len(here):
            assert logged[4][key] == pytest.approx(here.mean().item(), rel=1e-5)
    assert logged[4]["train/images_per_second"] > 0


def test_gradient_norm_is_the_norm_before_clipping(tmp_path):
    class Norm(Callback):
        def on_after_backward(self, trainer, module):
            grads = [p.grad.flatten() for p in module.parameters() if p.grad is not None]
            self.norm = torch.cat(grads).norm().item()

    norm = Norm()
    fit(experiment({"norm": norm}, max_steps=2, gradient_clip=1e-3), {}, tmp_path, None)
    logged = [row for row in rows(tmp_path) if row["step"] == 2 and "train/loss" in row]
    assert norm.norm > 1e-2
    assert logged[0]["train/gradient_norm"] == pytest.approx(norm.norm, rel=1e-4)


def test_the_grid_shows_the_averaged_model_on_fixed_noise(tmp_path):
    spy, sampler = Spy(), Sampler(DDIM(), steps=3)
    drawn = {"samples": SampleGrid(sampler, sampler, every=2, count=6), "spy": spy}
    fit(experiment(drawn, max_steps=4), {}, tmp_path, None)
    names = sorted(path.name for path in (tmp_path / "samples").glob("*"))
    assert names == ["denoising.gif", "step_00000002.png", "step_00000004.png"]
    with Image.open(tmp_path / "samples" / "denoising.gif") as animation:
        assert animation.n_frames == 3, "a frame for each of the 3 steps"
    model: DiffusionModel = spy.module.ema.model
    expected = grid(model.sample(sampler, Noise(0, torch.arange(6))))
    found = np.asarray(Image.open(tmp_path / "samples" / "step_00000004.png"), dtype=int)
    assert np.abs(found - np.asarray(expected, dtype=int)).max() <= 1
    raw = grid(spy.module.model.sample(sampler, Noise(0, torch.arange(6))))
    assert np.abs(found - np.asarray(raw, dtype=int)).max() > 1


def test_the_grid_of_a_conditional_model_says_what_was_asked_for(tmp_path):
    spy, sampler = Spy(), Sampler(DDIM(), steps=2)
    drawn = {"samples": SampleGrid(sampler, sampler, every=9, count=30), "spy": spy}
    fit(experiment(drawn, conditional=True, max_steps=1), {}, tmp_path, None)
    ids = torch.arange(30)
    x = spy.module.ema.model.sample(sampler, Noise(0, ids), {"label": ids % 5})
    expected = grid(x, captions=[CLASSES[i % 5] for i in range(30)])
    found = np.asarray(Image.open(tmp_path / "samples" / "step_00000001.png"), dtype=int)
    assert np.abs(found - np.asarray(expected, dtype=int)).max() <= 1
    with Image.open(tmp_path / "samples" / "denoising.gif") as animation:
        assert animation.size == grid(x[:25], captions=["x"] * 25).size


def test_the_grid_asks_by_the_pictures_of_the_validation_split(tmp_path):
    spy, sampler = Spy(), Sampler(DDIM(), steps=2)
    drawn = {"samples": SampleGrid(sampler, sampler, every=9, count=10), "spy": spy}
    sketched = PictureConditioner(Edges())
    network = UNet(
        (3, 16, 16), 3, sketched.shape, channels=8, multipliers=(1,), blocks=1,
        attention_resolutions=(),
    )  # fmt: skip
    run = experiment(drawn, conditioning=sketched, network=network, max_steps=1)
    fit(run, {}, tmp_path, None)
    rows = torch.arange(10) % 8  # the split begins again
    asked = run.data.images("validation").read(rows)
    x = spy.module.ema.model.sample(sampler, Noise(0, torch.arange(10)), {"image": asked})
    expected = grid(beside(sketched.picture({"image": asked}), x))
    found = np.asarray(Image.open(tmp_path / "samples" / "step_00000001.png"), dtype=int)
    assert np.abs(found - np.asarray(expected, dtype=int)).max() <= 1


def test_pictures_and_validation_leave_the_training_stream_alone(tmp_path):
    with_pictures = {
        "samples": SampleGrid(SDE, SDE, every=1, count=2),
        "forward": ForwardProcess(),
    }
    weights = []
    for name, callbacks, dropout in (("a", {}, 0.2), ("b", with_pictures, 0.2)):
        spy = Spy()
        fit(experiment({"spy": spy} | callbacks, dropout=dropout), {}, tmp_path / name, None)
        weights.append(spy.module.state_dict())
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def captions(folder, monkeypatch, conditional, **changes):
    told = {}
    monkeypatch.setattr(
        "unnoise.training.callbacks.samples.log_picture",
        lambda trainer, name, path, caption=None: told.update({name: caption}),
    )
    sampler = Sampler(DDIM(), steps=3, **changes)
    drawn = {"samples": SampleGrid(sampler, sampler, every=9, count=7)}
    fit(experiment(drawn, conditional=conditional, max_steps=1), {}, folder, None)
    return told


def test_a_caption_says_how_pictures_were_drawn_and_what_was_asked_for(tmp_path, monkeypatch):
    told = captions(tmp_path / "a", monkeypatch, False)
    assert told == dict.fromkeys(("denoising", "samples"), "DDIM, 3 steps")
    told = captions(tmp_path / "b", monkeypatch, True, guidance=Guidance(2.0))
    assert told["samples"] == f"DDIM, 3 steps, guidance 2: {', '.join(CLASSES[:5])}"
    monkeypatch.setattr("unnoise.training.callbacks.samples.SHORT", 20)
    assert captions(tmp_path / "c", monkeypatch, True)["samples"] == "DDIM, 3 steps"


@pytest.mark.parametrize(
    ("schedule", "times"),
    [
        (linear(), ["0", "250", "500", "749", "999"]),
        (EDMSchedule(), ["-6.21", "-3.57", "-0.916", "1.73", "4.38"]),
        (RectifiedFlow(), ["0.001", "0.251", "0.501", "0.75", "1"]),
    ],
)
def test_the_forward_process_is_shown_under_its_times(schedule, times, tmp_path):
    drawn = {"forward": ForwardProcess(pictures=2, levels=5)}
    run = experiment(drawn, schedule=schedule, prediction=VPrediction(), max_steps=1)
    fit(run, {}, tmp_path, None)
    ids = torch.arange(2)
    x0 = to_signal(run.data.images("validation").read(ids))
    rows = strip(schedule, x0, Noise(0, ids).normal("eps", x0.shape[1:]), 5)
    expected = table(
        [[grid(picture[None], width=78) for picture in row] for row in rows],
        ["", ""],
        [f"t = {t}" for t in times],
        "The forward process",
        "x_t = α·x0 + σ·ε at equal distances of time, shown as x_t/√(α² + σ²)",
    )
    found = Image.open(tmp_path / "samples" / "forward_process.png")
    assert np.array_equal(np.asarray(found), np.asarray(expected))


def test_a_picture_is_whole_or_not_there(tmp_path, monkeypatch):
    def cut_off(image, path, *args):
        Path(path).write_bytes(b"half")
        raise Killed

    drawn = {"forward": ForwardProcess(pictures=2, levels=3)}
    monkeypatch.setattr(Image.Image, "save", cut_off)
    with pytest.raises(Killed):
        fit(experiment(drawn, max_steps=1), {}, tmp_path, None)
    assert not (tmp_path / "samples" / "forward_process.png").exists()


def test_a_picture_that_cannot_be_drawn_is_said_and_training_goes_on(tmp_path, monkeypatch, capsys):
    def full(image, path, *args):
        raise OSError(28, "No space left on device")

    def too_much(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB.")

    forward = ForwardProcess(pictures=2, levels=3)
    drawn = {"forward": forward, "samples": SampleGrid(SDE, SDE, every=2, count=2)}
    monkeypatch.setattr(Image.Image, "save", full)
    monkeypatch.setattr(DiffusionModel, "sample", too_much)
    fit(experiment(drawn, max_steps=4), {}, tmp_path, None)
    said = re.findall("warning: .*", capsys.readouterr().err)
    memory = "(OutOfMemoryError: CUDA out of memory. Tried to allocate 20 GiB.); training goes on"
    assert said == [
        "warning: the forward process of step 0 is left out (OSError: [Errno 28] "
        f"No space left on device: '{tmp_path / 'samples' / 'forward_process.png'}'); "
        "training goes on",
        f"warning: the sample grid of step 2 is left out {memory}",
        f"warning: the sample grid of step 4 is left out {memory}",
    ]
    assert not list((tmp_path / "samples").iterdir())
    assert "finished" in json.loads((tmp_path / "manifest.json").read_text())


def test_a_network_that_is_unsaid_starts_at_loss_one(tmp_path):
    """Zero-initialised output: the first loss is 1 ± 4·√(2/n)."""
    spy = Spy()
    fit(experiment({"spy": spy}, max_steps=1, batch_size=40), {}, tmp_path, None)
    n = 40 * 3 * 16 * 16
    assert abs(spy.outputs[0]["loss"].item() - 1) < 4 * (2 / n) ** 0.5


def test_a_dashboard_that_fails_is_left_and_the_run_goes_on(tmp_path, capsys):
    class Broken(DummyLogger):
        def log_metrics(self, metrics, step=None):
            raise OSError("no route to host")

    fit(experiment(logger=lambda run_dir, title: Broken()), {}, tmp_path, None)
    said = "warning: Broken failed (no route to host) and is left out"
    assert capsys.readouterr().err.count(said) == 1
    assert [row["step"] for row in rows(tmp_path) if "train/loss" in row] == [1, 2, 4, 6, 8, 10]


def test_images_per_second_count_reading(tmp_path):
    class Slow(Callback):
        def on_train_start(self, trainer, module):
            images = trainer.datamodule.train_images
            read = images.read
            images.read = lambda indices: (time.sleep(0.05), read(indices))[1]

    fit(experiment({"slow": Slow()}, max_steps=8), {}, tmp_path, None)
    rates = [row["train/images_per_second"] for row in rows(tmp_path) if "train/loss" in row]
    assert max(rates[1:]) < 8 / 0.05


class Killed(BaseException):
    pass


def test_a_last_grid_that_a_kill_cut_off_is_drawn_when_the_run_is_resumed(tmp_path, monkeypatch):
    def killed(*args, **kwargs):
        raise Killed

    def run():
        return experiment({"samples": SampleGrid(SDE, SDE, every=9, count=2)}, max_steps=2)

    monkeypatch.setattr(SampleGrid, "_draw", killed)
    with pytest.raises(Killed):
        fit(run(), {}, tmp_path, None)
    monkeypatch.undo()
    fit(run(), {}, tmp_path, checkpoints(tmp_path)[-1])
    names = sorted(path.name for path in (tmp_path / "samples").glob("*"))
    assert names == ["denoising.gif", "step_00000002.png"]
    before = (tmp_path / "samples" / "step_00000002.png").stat().st_mtime_ns
    fit(run(), {}, tmp_path, checkpoints(tmp_path)[-1])
    assert (tmp_path / "samples" / "step_00000002.png").stat().st_mtime_ns == before
