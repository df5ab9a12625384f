"""What a run shows while it trains: pictures, progress.

None of these touches the training stream: they draw with their own noise. A picture that cannot be
drawn (no memory, no space) is said and left out; training goes on.
"""

import itertools
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from PIL import Image
from pydantic import Field
from torch import Tensor
from tqdm import tqdm

from unnoise.diffusion.noise_level import NoiseLevel
from unnoise.diffusion.random import Noise
from unnoise.diffusion.samplers import Sampler
from unnoise.figures.asking import asked, sheet, words
from unnoise.figures.forward import strip
from unnoise.files import write_durably
from unnoise.pictures import grid, save_gif, table, to_signal
from unnoise.training.diffusion_module import DiffusionModule
from unnoise.training.loggers import JsonLines, log_picture, say

Count = Annotated[int, Field(ge=1)]
FRAMES = 40  # of an animation, at most
MOVING = 25  # pictures in it, at most
SHORT = 120  # letters of a caption that still says what was asked for
CELL = 78  # pixels of a picture of the forward process, about


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
        assert isinstance(module, DiffusionModule)
        model = module.ema.model
        steps = len(model.schedule.grid(sampler.steps, sampler.spacing)) - 1
        shown = {round(i * steps / FRAMES) for i in range(1, FRAMES + 1)}
        taken = itertools.count(1)
        frames: list[Image.Image] = []
        ids = torch.arange(self.count, device=module.device)
        data = trainer.datamodule  # type: ignore[attr-defined]
        batch = asked(model, lambda: data.validation_split, ids)
        names = data.source.class_names()

        def watch(x: Tensor, level: NoiseLevel) -> None:
            if next(taken) in shown:
                scaled = x[:MOVING] / (level.alpha**2 + level.sigma**2).sqrt().to(x)
                frames.append(sheet(model, scaled, first, names))

        first = None if batch is None else {k: v[:MOVING] for k, v in batch.items()}
        model.eval()
        with trainer.precision_plugin.forward_context():
            noise = Noise(module.seed, ids)
            x = model.sample(sampler, noise, batch, watch if animate else None)
        told = _caption(sampler, steps, words(model, batch, names))
        if animate:
            path = _samples(trainer) / "denoising.gif"
            save_gif(frames, path)
            log_picture(trainer, "denoising", path, told)
        drawn, path = sheet(model, x, batch, names), _grid(trainer)
        write_durably(path, lambda temporary: drawn.save(temporary, "PNG"))
        log_picture(trainer, "samples", path, told)


def _caption(sampler: Sampler, steps: int, said: Sequence[str] | None) -> str:
    """How pictures were drawn, and what was asked for where that is short."""
    told = f"{type(sampler.stepper).__name__}, {steps} steps"
    if sampler.guidance.scale != 1:
        told += f", guidance {sampler.guidance.scale:g}"
    asked_for = ", ".join(dict.fromkeys(said or ()))
    return f"{told}: {asked_for}" if 0 < len(asked_for) <= SHORT else told


class ForwardProcess(Callback):
    """Draws the forward process of ``pictures`` images once, a row each, from clean to noise.

    Above each column stands its time t. Noisy pictures are scaled to be seen, as ``strip`` says.
    """

    def __init__(self, pictures: Count = 4, levels: Annotated[int, Field(ge=2)] = 12) -> None:
        self.pictures, self.levels = pictures, levels

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Draw it, if the run does not have it yet."""
        with _or_without(trainer, "the forward process"):
            self._draw(trainer, module)

    def _draw(self, trainer: Trainer, module: LightningModule) -> None:
        path = _samples(trainer) / "forward_process.png"
        if not trainer.is_global_zero or path.exists():
            return
        assert isinstance(module, DiffusionModule)
        images = trainer.datamodule.validation_split  # type: ignore[attr-defined]
        ids = torch.arange(min(self.pictures, len(images)))
        x0 = to_signal(images.read(ids))
        eps = Noise(module.seed, ids).normal("eps", x0.shape[1:])
        schedule = module.model.schedule
        rows = strip(schedule, x0, eps, self.levels)
        drawn = table(
            [[grid(picture[None], width=CELL) for picture in row] for row in rows],
            [""] * len(rows),
            [f"t = {_short(t)}" for t in torch.linspace(*schedule.ends, self.levels).flip(0)],
            "The forward process",
            "x_t = α·x0 + σ·ε at equal distances of time, shown as x_t/√(α² + σ²)",
        )
        write_durably(path, lambda temporary: drawn.save(temporary, "PNG"))
        log_picture(trainer, "forward_process", path)


@contextmanager
def _or_without(trainer: Trainer, what: str) -> Iterator[None]:
    """Say that a picture could not be drawn, and go on."""
    try:
        yield
    except Exception as error:
        told = str(error).strip().partition("\n")[0]
        said = f"{type(error).__name__}: {told}"
        say(f"{what} of step {trainer.global_step} is left out ({said}); training goes on")


def _short(t: Tensor) -> str:
    """Three digits, or the whole part where that has more."""
    return f"{t:.0f}" if abs(t) >= 100 else f"{t:.3g}"


def _grid(trainer: Trainer) -> Path:
    return _samples(trainer) / f"step_{trainer.global_step:08d}.png"


def _samples(trainer: Trainer) -> Path:
    folder = Path(trainer.default_root_dir) / "samples"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class Progress(ProgressBar):
    """One line that says how far training is, and the loss and speed that were logged last."""

    def __init__(self, name: str, metrics: JsonLines) -> None:
        super().__init__()
        self.name, self.metrics = name, metrics
        self._bar: Any = None

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Open the bar where the run stands."""
        self._bar = tqdm(
            total=trainer.max_steps,
            initial=trainer.global_step,
            desc=self.name,
            unit="step",
            dynamic_ncols=True,
            mininterval=0.2 if sys.stderr.isatty() else 30,  # seconds; a log file wants few lines
            disable=not trainer.is_global_zero,
            bar_format="{desc} {percentage:3.0f}% {bar} {n}/{total} steps "
            "[{elapsed}<{remaining}{postfix}]",
        )

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move on."""
        if "train/loss" in self.metrics.latest:
            self._bar.set_postfix_str(
                f"loss {self.metrics.latest['train/loss']:.4f}, "
                f"{self.metrics.latest['train/images_per_second']:.0f} images/s",
                refresh=False,
            )
        self._bar.update(trainer.global_step - self._bar.n)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Close the bar."""
        self._bar.close()

    def on_exception(
        self, trainer: Trainer, module: LightningModule, exception: BaseException
    ) -> None:
        """Close the bar, if there is one yet."""
        if self._bar is not None:
            self._bar.close()

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print above the bar."""
        tqdm.write(" ".join(map(str, args)))

    def disable(self) -> None:
        """Show nothing; Lightning asks for it on all ranks but the first, before there is a bar."""
        if self._bar is not None:
            self._bar.disable = True
