"""Numbers about reconstructions and latents, each with a value that is known for some input.

Shapes: N pictures, C channels, H × W pixels; latents of D channels, h × w places.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from unnoise.evaluation.distances import frechet_distance, moments
from unnoise.evaluation.estimates import groups, jackknife

ROUNDING_ERROR = 1 / 12  # squared, of pixels that were rounded to the nearest
WINDOW = 11  # pixels that SSIM looks at
ACTIVE = 0.01  # variance of a unit


def psnr(x: Tensor, y: Tensor) -> Tensor:
    """10·log10(255² / mean (x − y)²) of pixels (N, …) uint8, each picture on its own: (N,) dB.

    A squared error of less than what rounding leaves, 1/12, counts as that: 58.9 dB are the most.
    """
    squared = (x.cpu().double() - y.cpu().double()).square().flatten(1).mean(1)
    return 10 * (255**2 / squared.clamp(min=ROUNDING_ERROR)).log10()


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """Structural similarity of pictures (N, C, H, W) uint8, sides of 11 pixels or more: (N,).

    The mean over places and channels, by Gaussian windows of 1.5 pixels (Wang et al. 2004, eq. 13);
    1 if they are equal.
    """
    each = structural_similarity_index_measure(
        x.float(), y.float(), data_range=255.0, reduction="none"
    )
    assert isinstance(each, Tensor)
    return each


def active(variances: Tensor) -> Tensor:
    """Which units are active: the variance over data of their posterior mean exceeds 0.01.

    Burda, Grosse & Salakhutdinov 2016, §5.2.
    """
    return variances > ACTIVE


class Usage(NamedTuple):
    """The share of the codes that were used, and how many evenly used ones have their entropy."""

    share: float
    perplexity: float


def usage(counts: Tensor) -> Usage:
    """Of how often each of K codes was used (K,): share in (0, 1], perplexity exp H in [1, K]."""
    p = counts.double() / counts.sum()
    return Usage(float((counts > 0).double().mean()), float(torch.special.entr(p).sum().exp()))


class Spectrum(NamedTuple):
    """Mean power (R,) by spatial frequency (R,), in cycles along the shorter side."""

    cycles: Tensor
    power: Tensor

    @property
    def slope(self) -> float:
        """d ln power / d ln frequency, by least squares over the rings: −2 for a 1/f field.

        Raises:
            ValueError: there are fewer than two rings.
        """
        if len(self.cycles) < 2:
            raise ValueError("a slope takes sides of 3 or more")
        x, y = self.cycles.log(), self.power.log()
        x = x - x.mean()
        return float((x * (y - y.mean())).sum() / x.square().sum())


def power(x: Tensor) -> Tensor:
    """Squared coefficients of the orthonormal discrete cosine transform, mean over channels.

    (N, C, h, w) to (N, h, w) float64. It mirrors the picture at its sides, so that they make no
    edges. Skorokhodov et al. 2025, "Improving the Diffusability of Autoencoders", look at latents
    so. White noise has the same power everywhere, its variance.
    """
    rows, columns = (_cosines(side).to(x.device) for side in x.shape[-2:])
    return (rows @ x.to(rows) @ columns.T).square().mean(1)


def _cosines(n: int) -> Tensor:
    """The orthonormal matrix (n, n) of the DCT-II."""
    dtype = torch.float64
    k, place = torch.arange(n, dtype=dtype)[:, None], torch.arange(n, dtype=dtype) + 0.5
    waves = (math.pi / n * k * place).cos() * math.sqrt(2 / n)
    waves[0] /= math.sqrt(2)
    return waves


def slope(power: Tensor, n: int) -> tuple[float, float]:
    """The slope of the spectrum of n pictures, with its standard error.

    ``power`` (G, h, w) is summed over each of their ``groups``.

    Raises:
        ValueError: the sides are shorter than 3.
    """
    return jackknife(lambda kept: spectrum(power[kept].sum(0)).slope, n)


def spectrum(power: Tensor) -> Spectrum:
    """Power (h, w) by rings of equal frequency, from ½ cycle along the shorter side on.

    A ring's frequency and power are the geometric means of its coefficients, so that a power law
    stays one. The mean, and the corners beyond the highest frequency of the shorter side, are left
    out.
    """
    h, w = power.shape
    least = min(h, w)
    y = torch.arange(h, dtype=torch.float64)[:, None] * least / h
    x = torch.arange(w, dtype=torch.float64) * least / w
    half_cycles = (y.square() + x.square()).sqrt()
    ring = half_cycles.round().long()
    logs = power.double().cpu().clamp(min=torch.finfo(torch.float64).tiny).log()
    rings = [ring == r for r in range(1, least)]
    if not rings:
        return Spectrum(torch.empty(0), torch.empty(0))
    cycles = torch.stack([half_cycles[at].log().mean().exp() / 2 for at in rings])
    return Spectrum(cycles, torch.stack([logs[at].mean().exp() for at in rings]))


def paired_distance(x: Tensor, y: Tensor) -> tuple[float, float]:
    """The Fréchet distance of features (N, F) of pictures and of their reconstructions.

    With its standard error; the pictures that are deleted for it are deleted on both sides.
    """
    group = groups(len(x))

    def value(kept: Tensor) -> float:
        rows = kept[group]
        return float(frechet_distance(moments(y[rows]), moments(x[rows])))

    return jackknife(value, len(x))
