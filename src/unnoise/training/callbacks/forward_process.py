"""What a run shows while it trains: pictures, progress.

None of these touches the training stream: they draw with their own noise. A picture that cannot be
drawn (no memory, no space) is said and left out; training goes on.
"""

from typing import Annotated

import torch
from lightning import Callback, LightningModule, Trainer
from pydantic import Field
from torch import Tensor

from unnoise.data.pixels import to_signal
from unnoise.diffusion.noise import Noise
from unnoise.diffusion.schedules import NoiseSchedule
from unnoise.files import write_durably
from unnoise.report.figures.forward import strip
from unnoise.report.sheets import grid, table
from unnoise.training.callbacks.samples import Count, _or_without, _samples
from unnoise.training.logging.record import log_picture
from unnoise.training.module import GenerativeModule

CELL = 78  # pixels of a picture of the forward process, about


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
        assert isinstance(module, GenerativeModule)
        images = trainer.datamodule.validation_split  # type: ignore[attr-defined]
        ids = torch.arange(min(self.pictures, len(images)))
        x0 = to_signal(images.read(ids))
        eps = Noise(module.seed, ids).normal("eps", x0.shape[1:])
        schedule: NoiseSchedule = module.model.schedule
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


def _short(t: Tensor) -> str:
    """Three digits, or the whole part where that has more."""
    return f"{t:.0f}" if abs(t) >= 100 else f"{t:.3g}"
