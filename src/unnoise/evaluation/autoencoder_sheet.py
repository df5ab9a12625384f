"""An autoencoder on one picture: its numbers, its spectra, and reconstructions."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from unnoise.evaluation.frontier import COLOURS
from unnoise.evaluation.latents import Spectrum
from unnoise.files import write_durably

COLUMNS = 12  # pictures that are shown, at most
ENLARGED = 4  # times, a difference


class Shown(NamedTuple):
    """Pictures (k, C, H, W) uint8, their reconstructions, and their latents (k, 3, h, w) in [0, 1].

    Of latents the first three principal components are the colours.
    """

    pictures: Tensor
    made: Tensor
    latents: Tensor

    @classmethod
    def of(cls, pictures: Tensor, made: Tensor, z: Tensor) -> Self:
        """The first ``COLUMNS`` of those given."""
        return cls(pictures[:COLUMNS], made[:COLUMNS], principal(z[:COLUMNS]))


def principal(z: Tensor) -> Tensor:
    """Latents (k, D, h, w) as colours (k, 3, h, w) in [0, 1]: their first principal components.

    Those there are fewer of than three are grey; each has 3 standard deviations to both sides.
    """
    rows = z.double().movedim(1, -1).flatten(0, -2)
    rows = rows - rows.mean(0)
    _, vectors = torch.linalg.eigh(rows.T @ rows)
    vectors = vectors.flip(1)[:, :3]
    vectors = vectors * vectors.sum(0).sign().where(vectors.sum(0) != 0, 1.0)  # else up to a sign
    seen = rows @ vectors
    seen = (0.5 + seen / (6 * seen.std(0).clamp(min=1e-12))).clamp(0, 1)
    seen = torch.cat((seen, torch.full((len(seen), 3 - seen.shape[1]), 0.5).to(seen)), 1)
    k, _, h, w = z.shape
    return seen.reshape(k, h, w, 3).movedim(-1, 1)


def draw(path: Path, title: str, text: str, spectra: Mapping[str, Spectrum], shown: Shown) -> Path:
    """A PNG: the numbers, the spectra, and below them pictures with what became of them."""
    from matplotlib.figure import Figure  # slow to import

    difference = ENLARGED * (shown.pictures.short() - shown.made.short()).abs()
    rows = {
        "original": shown.pictures,
        "reconstruction": shown.made,
        f"{ENLARGED}·|difference|": difference.clamp(max=255).to(torch.uint8),
        "latent, 3 components": (255 * shown.latents).round().to(torch.uint8),
    }
    count = len(shown.pictures)
    lines = text.count("\n") + 1
    above, each = max(4.0, 0.16 * lines + 0.6), 12.6 / COLUMNS
    figure = Figure(figsize=(14, above + len(rows) * each + 0.3), dpi=110, layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=(above, len(rows) * each))
    left, right = parts[0].subfigures(1, 2, width_ratios=(8, 6))
    left.text(0.02, 0.95, title, fontsize=12, va="top", weight="bold")
    left.text(0.02, 0.88, text, family="monospace", fontsize=8, va="top")
    _plot(right.subplots(), spectra)
    axes = parts[1].subplots(len(rows), COLUMNS, squeeze=False)
    for row, (name, pictures) in zip(axes, rows.items(), strict=True):
        for k, cell in enumerate(row):
            cell.set(xticks=[], yticks=[])
            cell.spines[:].set_visible(False)
            if k < count:
                picture = pictures[k].expand(3, -1, -1).permute(1, 2, 0).numpy()
                cell.imshow(picture, interpolation="nearest", vmin=0, vmax=255)
        row[0].set_ylabel(name.replace(", ", ",\n"), fontsize=8)
    write_durably(path, lambda temporary: figure.savefig(temporary, format="png"))
    return path


def _plot(axes: Any, spectra: Mapping[str, Spectrum]) -> None:
    """Power by frequency, each spectrum in parts of its first ring, on logarithmic axes."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    for (name, found), colour, marker in zip(spectra.items(), COLOURS, "os", strict=False):
        if len(found.cycles) < 2:
            continue
        relative = found.power / found.power[0]
        label = f"{name}, slope {found.slope:.2f}"
        axes.loglog(found.cycles, relative, color=colour, marker=marker, markersize=3, label=label)
    axes.set_xlabel("cycles along the shorter side")
    axes.set_ylabel("power, lowest frequency = 1")
    axes.set_title("Power by spatial frequency", fontsize=10)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(color="0.92")
    axes.legend(frameon=False, fontsize=9)
