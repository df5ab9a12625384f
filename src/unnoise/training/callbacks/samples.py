"""What a run shows while it trains: pictures, progress.

None of these touches the training stream: they draw with their own noise. A picture that cannot be
drawn (no memory, no space) is said and left out; training goes on.
"""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from lightning import Callback, LightningModule, Trainer
from pydantic import Field
from torch import Tensor

from unnoise.data.pixels import to_pixels
from unnoise.diffusion.levels import NoiseLevel
from unnoise.diffusion.samplers import Sampler
from unnoise.files import write_durably
from unnoise.models.prompts import Prompts
from unnoise.models.trained import draw
from unnoise.report.sheets import save_gif, sheet
from unnoise.runs.layout import RunDirectory
from unnoise.training.logging.messages import say
from unnoise.training.logging.record import log_picture
from unnoise.training.module import GenerativeModule

Count = Annotated[int, Field(ge=1)]
FRAMES = 40  # of an animation, at most
MOVING = 25  # pictures in it, at most
SHORT = 120  # letters of a caption that still says what was asked for


class SampleGrid(Callback):
    """Draws ``count`` pictures from the averaged model every ``every`` steps, and at the end.

    They go to ``<run>/samples``, with what a conditional model was asked for: classes and captions
    below, pictures to the left. What is asked and the noise are the same each time, so that the
    pictures can be watched growing. ``sampler`` draws while the run goes on; at the end ``final``
    draws the last grid and an animation of the denoising. Rank 0 draws; the others wait at their
    next step.
    """

    def __init__(
        self, sampler: Sampler, final: Sampler, every: Count = 1000, count: Count = 64
    ) -> None:
        self.sampler, self.final, self.every, self.count = sampler, final, every, count

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Draw when due."""
        step = trainer.global_step
        stepped = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if stepped and step % self.every == 0 and step != trainer.max_steps:
            with _or_without(trainer, "the sample grid"):
                self._draw(trainer, module, self.sampler, animate=False)

    def on_fit_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Draw the last grid, and the animation; also if a kill cut that off, and it is resumed."""
        with _or_without(trainer, "the sample grid"):
            if not _grid(trainer).exists():
                self._draw(trainer, module, self.final, animate=True)

    def _draw(
        self, trainer: Trainer, module: LightningModule, sampler: Sampler, animate: bool
    ) -> None:
        if not trainer.is_global_zero:
            return
        assert isinstance(module, GenerativeModule)
        model = module.ema.model
        steps = len(model.schedule.grid(sampler.steps, sampler.spacing)) - 1
        shown = {round(i * steps / FRAMES) for i in range(1, FRAMES + 1)}
        taken = itertools.count(1)
        frames: list[Tensor] = []
        data = trainer.datamodule  # type: ignore[attr-defined]
        prompts = Prompts(model, lambda: data.validation_split, data.source.class_names())

        def watch(x: Tensor, level: NoiseLevel) -> None:
            if next(taken) in shown:
                scaled = x[:MOVING] / (level.alpha**2 + level.sigma**2).sqrt().to(x)
                frames.append(to_pixels(scaled).cpu())

        model.eval()
        with trainer.precision_plugin.forward_context():
            drawn = draw(
                model,
                sampler,
                prompts,
                module.seed,
                range(self.count),
                batch_size=self.count,
                watch=watch if animate else None,
            )
        told = _caption(sampler, steps, drawn.captions)
        if animate:
            path = _samples(trainer) / "denoising.gif"
            first = drawn[:MOVING]
            save_gif([sheet(replace(first, pixels=frame)) for frame in frames], path)
            log_picture(trainer, "denoising", path, told)
        image, path = sheet(drawn), _grid(trainer)
        write_durably(path, lambda temporary: image.save(temporary, "PNG"))
        log_picture(trainer, "samples", path, told)


def _caption(sampler: Sampler, steps: int, said: Sequence[str] | None) -> str:
    """How pictures were drawn, and what was asked for where that is short."""
    told = f"{type(sampler.stepper).__name__}, {steps} steps"
    if sampler.guidance.scale != 1:
        told += f", guidance {sampler.guidance.scale:g}"
    asked_for = ", ".join(dict.fromkeys(said or ()))
    return f"{told}: {asked_for}" if 0 < len(asked_for) <= SHORT else told


@contextmanager
def _or_without(trainer: Trainer, what: str) -> Iterator[None]:
    """Say that a picture could not be drawn, and go on."""
    try:
        yield
    except Exception as error:
        told = str(error).strip().partition("\n")[0]
        said = f"{type(error).__name__}: {told}"
        say(f"{what} of step {trainer.global_step} is left out ({said}); training goes on")


def _grid(trainer: Trainer) -> Path:
    return RunDirectory(_samples(trainer).parent).grid(trainer.global_step)


def _samples(trainer: Trainer) -> Path:
    folder = RunDirectory(Path(trainer.default_root_dir)).samples
    folder.mkdir(parents=True, exist_ok=True)
    return folder
