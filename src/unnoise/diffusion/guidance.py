"""Guidance: how two guesses, one of them told more, become one that says it louder.

Every kind takes guesses and gives one, so that samplers never know of it. ``scale`` is Stable
Diffusion's s, which is 1 + w of Ho & Salimans 2022: 1 leaves the stronger guess as it is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from unnoise.diffusion.denoiser import Denoise, Denoised
from unnoise.diffusion.levels import NoiseLevel, match

Pair = Callable[[Tensor, NoiseLevel], tuple[Denoised, Denoised]]
"""(x_t, level) to the guesses of the stronger and of the weaker branch."""


Ratio = Annotated[float, Field(ge=0)]
NO_SPREAD = 1e-6  # a standard deviation that a picture of one colour may have from rounding


@dataclass(frozen=True)
class Guidance:
    """How far to go from the weaker guess through the stronger one, where, and tamed how.

    Args:
        scale: s of weak + s·(strong − weak); 1 is off.
        interval: noise levels sigma/alpha, low and high, between which guidance is on
            (Kynkäänniemi et al. 2024); None: everywhere.
        rescale: φ of Lin et al. 2023, eq. 15, 16: how much of the standard deviation of the
            stronger guess is restored. Not for a classifier, which makes no stronger guess.

    Raises:
        ValueError: the interval's low is above its high.
    """

    scale: Annotated[float, Field(ge=0)] = 1.0
    interval: Annotated[Sequence[Ratio], Field(min_length=2, max_length=2)] | None = None
    rescale: Annotated[float, Field(ge=0, le=1)] = 0.0

    def __post_init__(self) -> None:
        if self.interval is None:
            return
        low, high = self.interval
        if low > high:
            raise ValueError(
                f"the guidance interval [{low}, {high}] is empty: give its lower end first"
            )

    def applies(self, level: NoiseLevel) -> bool:
        """Whether a level () lies within the interval."""
        if self.interval is None:
            return True
        low, high = self.interval
        return low <= float(level.sigma / level.alpha) <= high


def extrapolated(strong: Denoise, pair: Pair, guidance: Guidance) -> Denoise:
    """weak + s·(strong − weak) within the interval, the strong guess alone outside of it.

    With the null condition as the weaker branch this is classifier-free guidance (Ho & Salimans
    2022, eq. 6), with a worse model it is autoguidance (Karras et al. 2024).
    """
    if guidance.scale == 1:
        return strong

    def denoise(x_t: Tensor, level: NoiseLevel) -> Denoised:
        if not guidance.applies(level):
            return strong(x_t, level)
        with_it, without = pair(x_t, level)
        x0 = torch.lerp(without.x0, with_it.x0, guidance.scale)
        if guidance.rescale:
            ratio = _spread(with_it.x0) / _spread(x0)
            x0 = x0 * match(guidance.rescale * ratio + 1 - guidance.rescale, x0)
            alpha, sigma = level.like(x_t)
            eps = (x_t - alpha * x0) / sigma
        else:
            eps = torch.lerp(without.eps, with_it.eps, guidance.scale)
        return Denoised(x0, eps, with_it.variance_fraction)

    return denoise


def _spread(x0: Tensor) -> Tensor:
    """Standard deviation of each picture (B,), above 0."""
    return x0.flatten(1).std(dim=1).clamp(min=NO_SPREAD)


def classifier_guided(
    denoise: Denoise, log_probability: Callable[[Tensor, NoiseLevel], Tensor], guidance: Guidance
) -> Denoise:
    """ε − s·sigma·∇ ln p(y | x_t) (Dhariwal & Nichol 2021, algorithm 2), s = ``scale``; 0 is off.

    ``log_probability`` gives ln p(y | x_t) of each sample (B,), of a classifier that was trained
    on noisy pictures. Where alpha = 0 it has nothing to go by and is not asked.
    """

    def guided(x_t: Tensor, level: NoiseLevel) -> Denoised:
        guess = denoise(x_t, level)
        if guidance.scale == 0 or level.alpha == 0 or not guidance.applies(level):
            return guess
        with torch.inference_mode(False), torch.enable_grad():
            x = x_t.clone().requires_grad_()
            here = NoiseLevel(*(value.clone() for value in level))
            slope = torch.autograd.grad(log_probability(x, here).sum(), x)[0]
        alpha, sigma = level.like(x_t)
        push = guidance.scale * sigma * slope
        return Denoised(guess.x0 + sigma / alpha * push, guess.eps - push, guess.variance_fraction)

    return guided
