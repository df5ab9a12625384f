"""Ancestral sampling: DDPM and DDIM. x is at level t (``now``); the step leads to s (``to``)."""

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from unnoise.diffusion.levels import (
    NoiseLevel,
    Variance,
    posterior,
    posterior_variance,
    reverse_variance,
)
from unnoise.diffusion.samplers.base import Stepper, Walk


class Ancestral(Stepper):
    """DDPM's algorithm 2: draw x_s from N(mean of q(x_s | x_t, x0), σ²·I).

    In terms of ε the mean is (x_t − β_t/√(1−ᾱ_t)·ε)/√(1−β_t). variance: "beta", σ² = β (optimal for
    data N(0, I)); "posterior", σ² = β̃ (optimal for one data point); "learned", between the two as
    the network predicts; "none", σ² = 0, the ablation in which samples lose their detail and
    collapse to the mean. The last step adds no noise.
    """

    def __init__(self, variance: Variance | Literal["none"] = "beta") -> None:
        self.variance = variance

    def step(self, walk: Walk, x: Tensor, now: NoiseLevel, to: NoiseLevel) -> Tensor:
        """mean + σ·z."""
        denoised = walk.denoise(x, now)
        mean = posterior(denoised.x0, x, now, to).mean
        if self.variance == "none" or to.sigma == 0:
            return mean
        variance = reverse_variance(self.variance, now, to, denoised.variance_fraction)
        return mean + variance.sqrt().to(x) * walk.noise()


class DDIM(Stepper):
    """x_s = alpha_s·x0 + √(sigma_s² − σ²)·ε + σ·z, with σ² = η²·β̃ (Song et al. 2021, eq. 12, 16).

    η = 0 is deterministic; η = 1 is DDPM with σ² = β̃.
    """

    def __init__(self, eta: Annotated[float, Field(ge=0, le=1)] = 0.0) -> None:
        self.eta = eta

    def step(self, walk: Walk, x: Tensor, now: NoiseLevel, to: NoiseLevel) -> Tensor:
        """The three terms of eq. 12."""
        denoised = walk.denoise(x, now)
        variance = self.eta**2 * posterior_variance(now, to)
        direct = (to.sigma**2 - variance).clamp(min=0)  # rounding can make it negative
        x = to.alpha.to(x) * denoised.x0 + direct.sqrt().to(x) * denoised.eps
        return x + variance.sqrt().to(x) * walk.noise() if variance > 0 else x
