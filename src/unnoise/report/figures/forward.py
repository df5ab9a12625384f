"""The forward process as pictures and curves."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor

from unnoise.config.numbers import Number
from unnoise.data.pixels import to_pixels, to_signal
from unnoise.data.source import ImageSource
from unnoise.diffusion.levels import diffuse
from unnoise.diffusion.noise import Noise
from unnoise.diffusion.schedules import NoiseSchedule
from unnoise.report.sheets import grid, stacked, table

DPI = 100
POINTS = 400  # of a curve
LOG_SNRS = (-14, 14)  # of the axes; beyond, x_t is pure noise, or clean
Named = Mapping[str, NoiseSchedule]


def strip(
    schedule: NoiseSchedule,
    x0: Tensor,
    eps: Tensor,
    levels: int,
    decode: Callable[[Tensor], Tensor] = to_pixels,
) -> Tensor:
    """The forward process at ``levels`` equally spaced times, the cleanest first.

    x_t is shown as x_t/√(alpha² + sigma²), so that noise does not saturate to black and white where
    the schedule does not preserve variance.

    ``x0`` and ``eps`` are (N, C, H, W), x0 in [−1, 1] or a latent that ``decode`` makes pictures
    of; ``levels`` is at least 2. Returns uint8 (N, levels, C, H, W).
    """
    shown = []
    for t in torch.linspace(*schedule.ends, levels, dtype=torch.float64).flip(0):
        level = schedule.level(t)
        power = level.alpha**2 + level.sigma**2
        shown.append(decode(diffuse(x0, eps, level) / power.sqrt().to(x0)))
    return torch.stack(shown, dim=1)


class DataFigure(ABC):
    """A figure of a data set."""

    @abstractmethod
    def draw(self, data: ImageSource) -> Image.Image:
        """The figure, RGB."""


@dataclass(frozen=True)
class Schedules(DataFigure):
    """The forward process of one picture under each schedule, with curves of the log-SNR.

    ``picture`` is its index in the validation split.
    """

    schedules: dict[str, NoiseSchedule]
    levels: Annotated[int, Field(ge=2)] = 11
    picture: Number = 0
    seed: Number = 0

    def draw(self, data: ImageSource) -> Image.Image:
        """A row for each schedule, and all curves below."""
        images = data.images("validation")
        ids = torch.tensor([self.picture]) % len(images)
        x0 = to_signal(images.read(ids))
        eps = Noise(self.seed, ids).normal("eps", x0.shape[1:])
        cells = []
        for name, schedule in self.schedules.items():
            process = strip(schedule, x0, eps, self.levels)[0]
            pictures = grid(process, columns=self.levels, width=76 * self.levels)
            cells.append([pictures, _small(self.schedules, name, 220, pictures.height)])
        rows = table(
            cells,
            list(self.schedules),
            ["picture → noise, at equally spaced times", "ln SNR over time"],
            "The forward process under each schedule",
            "x_t = α·x0 + σ·ε with the same x0 and ε in every row, shown as x_t/√(α² + σ²)",
        )
        return stacked([rows, _curves(self.schedules, rows.width, 360)])


def log_snr(schedule: NoiseSchedule) -> tuple[Tensor, Tensor]:
    """Equally spaced times, from 1 at the noisy end to 0 at the clean end, and their ln SNR."""
    times = torch.linspace(*schedule.ends, POINTS, dtype=torch.float64)
    return torch.linspace(1, 0, POINTS), schedule.level(times).log_snr.clamp(-50, 50)


def _small(schedules: Named, name: str, width: int, height: int) -> Image.Image:
    """ln SNR of the schedule ``name`` in its colour, and all others in grey."""
    figure = _figure(width, height)
    axes = figure.add_axes((0.16, 0.06, 0.82, 0.88))
    for number, (other, schedule) in enumerate(schedules.items()):
        front = {"color": f"C{number}", "linewidth": 2, "zorder": 3}
        axes.plot(*log_snr(schedule), **(front if other == name else {"color": "0.85"}))
    axes.set(xlim=(0, 1), ylim=LOG_SNRS, xticks=[], yticks=[-10, 0, 10])
    axes.tick_params(labelsize=9)
    return _image(figure)


def _curves(schedules: Named, width: int, height: int) -> Image.Image:
    """The signal's share of the power, and ln SNR, of all schedules over time."""
    figure = _figure(width, height)
    left, right = figure.subplots(1, 2)
    for number, (name, schedule) in enumerate(schedules.items()):
        time, ln_snr = log_snr(schedule)
        left.plot(time, ln_snr.sigmoid(), color=f"C{number}")
        right.plot(time, ln_snr, color=f"C{number}", label=name)
    left.set_title("ᾱ = α²/(α² + σ²): the share of the picture", fontsize=11)
    right.set_title("ln SNR = ln(α²/σ²)", fontsize=11)
    left.set(xlim=(0, 1), ylim=(0, 1), xlabel="time (0 clean, 1 noise)")
    right.set(xlim=(0, 1), ylim=LOG_SNRS, xlabel="time (0 clean, 1 noise)")
    right.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    for axes in (left, right):
        axes.grid(color="0.9")
    figure.tight_layout()
    return _image(figure)


def _figure(width: int, height: int) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # needs no display, but is slow
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    FigureCanvasAgg(figure)
    return figure


def _image(figure: Any) -> Image.Image:
    figure.canvas.draw()
    return Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB")
