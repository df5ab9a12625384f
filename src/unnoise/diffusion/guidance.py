"""Guidance: extrapolation from a weaker prediction through a stronger one.

Every kind turns a denoiser into another one, so samplers need not know of it. ``scale`` is Stable
Diffusion's s, which is 1 + w of Ho & Salimans 2022: 1 leaves the stronger prediction unchanged.
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
"""(x_t, level) to the predictions of the stronger and of the weaker branch."""


Ratio = Annotated[float, Field(ge=0)]
NO_SPREAD = 1e-6  # standard deviation that rounding may give a constant sample


@dataclass(frozen=True)
class Guidance:
    """How strong guidance is, at which levels, and how much of the contrast it restores.

    Args:
        scale: s of weak + s·(strong − weak); 1 is off.
        interval: noise levels sigma/alpha, low and high, between which guidance is on
            (Kynkäänniemi et al. 2024); None: everywhere.
        rescale: φ of Lin et al. 2023, eq. 15, 16: how much of the standard deviation of the
            stronger prediction is restored. Not for classifier guidance.

    Raises:
        ValueError: the interval's lower end is above its upper end.
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

    def check_negative(self, by_another: bool) -> None:
        """ValueError if negative captions would have no effect."""
        if by_another:
            raise ValueError(
                "negative captions are for guidance by the model's own captions, not for a weak "
                "model or a classifier"
            )
        if self.scale == 1:
            raise ValueError(
                "negative captions act through guidance, which is 1 here, and off: set guidance "
                "above 1"
            )


def extrapolated(strong: Denoise, pair: Pair, guidance: Guidance) -> Denoise:
    """weak + s·(strong − weak) within the interval, strong outside of it.

    With the null condition as the weaker branch this is classifier-free guidance (Ho & Salimans
    2022, eq. 6); with a worse model it is autoguidance (Karras et al. 2024).
    """
    if guidance.scale == 1:
        return strong

    def denoise(x_t: Tensor, level: NoiseLevel) -> Denoised:
        if not guidance.applies(level):
            return strong(x_t, level)
        stronger, weaker = pair(x_t, level)
        x0 = torch.lerp(weaker.x0, stronger.x0, guidance.scale)
        if guidance.rescale:
            ratio = _spread(stronger.x0) / _spread(x0)
            x0 = x0 * match(guidance.rescale * ratio + 1 - guidance.rescale, x0)
            alpha, sigma = level.like(x_t)
            eps = (x_t - alpha * x0) / sigma
        else:
            eps = torch.lerp(weaker.eps, stronger.eps, guidance.scale)
        return Denoised(x0, eps, stronger.variance_fraction)

    return denoise


def _spread(x0: Tensor) -> Tensor:
    """Standard deviation of each sample (B,), above 0."""
    return x0.flatten(1).std(dim=1).clamp(min=NO_SPREAD)


def classifier_guided(
    denoise: Denoise, log_probability: Callable[[Tensor, NoiseLevel], Tensor], guidance: Guidance
) -> Denoise:
    """ε − s·sigma·∇ ln p(y | x_t) (Dhariwal & Nichol 2021, algorithm 2), s = ``scale``; 0 is off.

    ``log_probability`` is ln p(y | x_t) of each sample (B,), from a classifier that was trained on
    noisy samples. Where alpha = 0, x_t is pure noise and the classifier is not used.
    """

    def guided(x_t: Tensor, level: NoiseLevel) -> Denoised:
        denoised = denoise(x_t, level)
        if guidance.scale == 0 or level.alpha == 0 or not guidance.applies(level):
            return denoised
        with torch.inference_mode(False), torch.enable_grad():
            x = x_t.clone().requires_grad_()
            here = NoiseLevel(*(value.clone() for value in level))
            slope = torch.autograd.grad(log_probability(x, here).sum(), x)[0]
        alpha, sigma = level.like(x_t)
        push = guidance.scale * sigma * slope
        return Denoised(
            denoised.x0 + sigma / alpha * push, denoised.eps - push, denoised.variance_fraction
        )

    return guided
