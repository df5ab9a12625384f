"""Pictures that a run draws while it trains.

They are drawn with noise of their own, so that training is the same with and without them. If one
cannot be drawn (no memory, no disk space), a warning says so and training goes on.
"""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
from lightning import Callback, LightningModule, Trainer
from PIL import Image
from pydantic import Field
from torch import Tensor
from tqdm import tqdm

from unnoise.config.numbers import Count
from unnoise.diffusion.levels import NoiseLevel
from unnoise.diffusion.noise import Noise
from unnoise.diffusion.schedules import NoiseSchedule
from unnoise.files import write_durably
from unnoise.models.drawn import draw
from unnoise.models.prompts import Prompts
from unnoise.report.figures.forward import strip
from unnoise.report.sheets import grid, save_gif, sheet, table
from unnoise.runs.layout import RunDirectory
from unnoise.training.logging.record import log_picture, say

FRAMES = 40  # of an animation, at most
MOVING = 25  # pictures in it, at most
SHORT = 120  # letters of prompts that still go into a caption
CELL = 78  # approximate pixels of a picture of the forward process


class SampleGrid(Callback):
    """Draws ``count`` pictures from the EMA weights every ``every`` optimizer steps and at the end.

    The grids go to ``<run>/samples``. Prompts of a conditional model stand beside the pictures:
    classes and captions below, pictures to the left. Prompts and noise are the same each time.
    ``sampler`` draws during training; at the end ``final`` draws the last grid and an animation of
    the denoising, or where that takes one step, of the training. Rank 0 draws; the others wait at
    their next step.
    """

    def __init__(self, sampler: Any, final: Any, every: Count = 1000, count: Count = 64) -> None:
        self.sampler, self.final, self.every, self.count = sampler, final, every, count

    def on_train_batch_end(self, trainer: Trainer, module: Any, *_: Any) -> None:
        """Draw when due."""
        step = trainer.global_step
        if module.stepped and step % self.every == 0 and step != trainer.max_steps:
            with _or_without(trainer, "the sample grid"):
                self._draw(trainer, module, self.sampler, animate=False)

    def on_fit_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Draw the last grid and the animation, unless they were drawn before the run resumed."""
        with _or_without(trainer, "the sample grid"):
            files = RunDirectory(Path(trainer.default_root_dir))
            if not files.grid(trainer.global_step).exists():
                self._draw(trainer, module, self.final, animate=True)
            if trainer.is_global_zero and not files.denoising.exists():
                _animate_training(trainer, files)

    def _draw(self, trainer: Trainer, module: Any, sampler: Any, animate: bool) -> None:
        if not trainer.is_global_zero:
            return
        files, model = RunDirectory(Path(trainer.default_root_dir)), module.ema.model
        steps = model.steps(sampler)
        shown = {round(i * steps / FRAMES) for i in range(1, FRAMES + 1)}
        taken = itertools.count(1)
        frames: list[Tensor] = []
        data = trainer.datamodule  # type: ignore[attr-defined]
        prompts = Prompts(model, lambda: data.validation_split, data.source.class_names())

        def watch(x: Tensor, level: NoiseLevel) -> None:
            bar.update()
            if animate and next(taken) in shown:
                scaled = x[:MOVING] / (level.alpha**2 + level.sigma**2).sqrt().to(x)
                frames.append(model.codec.decode(scaled).cpu())

        model.eval()
        title = f"drawing {(n := self.count)} pictures"
        bar = tqdm(desc=title, total=steps, unit="step", delay=2, leave=False, disable=None)
        with trainer.precision_plugin.forward_context(), bar:
            drawn = draw(model, sampler, prompts, module.seed, range(n), n, watch)
        caption = _caption(model.caption(sampler), drawn.captions)
        if len(frames) > 1:
            moving = [sheet(replace(drawn[:MOVING], pixels=frame)) for frame in frames]
            write_durably(files.denoising, lambda temporary: save_gif(moving, temporary))
            log_picture(trainer, "denoising", files.denoising, caption)
        image, path = sheet(drawn), files.grid(trainer.global_step)
        write_durably(path, lambda temporary: image.save(temporary, "PNG"))
        log_picture(trainer, "samples", path, caption)


class ForwardProcess(Callback):
    """Draws the forward process of ``pictures`` images once, a row each, from clean to noise.

    Each column is headed by its time t. Noisy pictures are scaled as in ``strip``.
    """

    needs_levels = True

    def __init__(self, pictures: Count = 4, levels: Annotated[int, Field(ge=2)] = 12) -> None:
        self.pictures, self.levels = pictures, levels

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Draw it, unless the run has it already."""
        with _or_without(trainer, "the forward process"):
            self._draw(trainer, module)

    def _draw(self, trainer: Trainer, module: Any) -> None:
        path = RunDirectory(Path(trainer.default_root_dir)).forward_process
        if not trainer.is_global_zero or path.exists():
            return
        images = trainer.datamodule.validation_split  # type: ignore[attr-defined]
        ids = torch.arange(min(self.pictures, len(images)))
        codec = module.model.codec
        x0 = codec.encode(images.read(ids))
        eps = Noise(module.seed, ids).normal("eps", x0.shape[1:]).to(x0)
        schedule: NoiseSchedule = module.model.schedule
        rows = strip(schedule, x0, eps, self.levels, codec.decode).cpu()
        times = torch.linspace(*schedule.ends, self.levels).flip(0)
        drawn = table(
            [[grid(picture[None], width=CELL) for picture in row] for row in rows],
            [""] * len(rows),
            [f"t = {t:.0f}" if abs(t) >= 100 else f"t = {t:.3g}" for t in times],
            "The forward process",
            "x_t = α·x0 + σ·ε at equal distances of time, shown as x_t/√(α² + σ²)",
        )
        write_durably(path, lambda temporary: drawn.save(temporary, "PNG"))
        log_picture(trainer, "forward_process", path)


def _animate_training(trainer: Trainer, files: RunDirectory) -> None:
    """All grids one after the other, or as many of them as make an animation."""
    grids = files.grids()
    shown = {round(i * (len(grids) - 1) / FRAMES) for i in range(FRAMES + 1)}
    pictures = [Image.open(grids[i]) for i in sorted(shown)]
    frames = [each.convert("RGB") for each in pictures if each.size == pictures[-1].size]
    if len(frames) > 1:
        write_durably(files.training, lambda temporary: save_gif(frames, temporary))
        log_picture(trainer, "training", files.training)


def _caption(text: str, prompts: Sequence[str] | None) -> str:
    """How pictures were drawn, with their prompts if these are short."""
    joined = ", ".join(dict.fromkeys(prompts or ()))
    return f"{text}: {joined}" if 0 < len(joined) <= SHORT else text


@contextmanager
def _or_without(trainer: Trainer, what: str) -> Iterator[None]:
    """Warn that a picture could not be drawn, and go on."""
    try:
        yield
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        say(f"{what} of step {trainer.global_step} is left out ({reason}); training goes on")
