"""Samplers: how to walk the noise levels down to a picture.

A sampler is one short ``step`` that mirrors its formula; the loop over levels stands once, in
``sample``. Below, x is at level t (``now``) and the step leads to the cleaner level s (``to``).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from unnoise.diffusion.denoiser import Denoise, Threshold, thresholded
from unnoise.diffusion.noise_level import NoiseLevel, posterior, posterior_variance, transition
from unnoise.diffusion.random import Noise
from unnoise.diffusion.schedules import NoiseSchedule, Spacing

Watch = Callable[[Tensor, NoiseLevel], None]
"""Is shown x and its level after every step."""


class Stepper(ABC):
    """One step of a sampler."""

    @abstractmethod
    def step(
        self,
        denoise: Denoise,
        x: Tensor,
        now: NoiseLevel,
        to: NoiseLevel,
        memory: Any,
        noise: Callable[[], Tensor],
    ) -> tuple[Tensor, Any]:
        """x (B, …) at ``to``, and what the next step should remember (None at the first).

        Each call of ``noise`` gives fresh N(0, I) of the shape of x.
        """


class Ancestral(Stepper):
    """DDPM's algorithm 2: draw x_s from N(mean of q(x_s | x_t, x0), σ²·I).

    With ε the mean is (x_t − β_t/√(1−ᾱ_t)·ε)/√(1−β_t). variance: "beta", σ² = β (optimal for data
    N(0, I)); "posterior", σ² = β̃ (optimal for one data point); "none", σ² = 0, the ablation in
    which pictures lose their detail and collapse to the mean. The last step adds no noise.
    """

    def __init__(self, variance: Literal["beta", "posterior", "none"] = "beta") -> None:
        self.variance = variance

    def step(
        self,
        denoise: Denoise,
        x: Tensor,
        now: NoiseLevel,
        to: NoiseLevel,
        memory: Any,
        noise: Callable[[], Tensor],
    ) -> tuple[Tensor, Any]:
        """mean + σ·z."""
        mean = posterior(denoise(x, now).x0, x, now, to).mean
        if self.variance == "none" or to.sigma == 0:
            return mean, None
        beta, beta_tilde = transition(to, now)[1], posterior_variance(now, to)
        variance = beta if self.variance == "beta" else beta_tilde
        return mean + variance.sqrt().to(x) * noise(), None


class DDIM(Stepper):
    """x_s = alpha_s·x0 + √(sigma_s² − σ²)·ε + σ·z, with σ² = η²·β̃ (Song et al. 2021, eq. 12, 16).

    η = 0 is deterministic; η = 1 is DDPM with σ² = β̃.
    """

    def __init__(self, eta: Annotated[float, Field(ge=0, le=1)] = 0.0) -> None:
        self.eta = eta

    def step(
        self,
        denoise: Denoise,
        x: Tensor,
        now: NoiseLevel,
        to: NoiseLevel,
        memory: Any,
        noise: Callable[[], Tensor],
    ) -> tuple[Tensor, Any]:
        """The three terms of eq. 12."""
        x0, eps = denoise(x, now)
        variance = self.eta**2 * posterior_variance(now, to)
        x = to.alpha.to(x) * x0 + (to.sigma**2 - variance).sqrt().to(x) * eps
        return (x + variance.sqrt().to(x) * noise() if variance > 0 else x), None


def sample(
    denoise: Denoise,
    stepper: Stepper,
    levels: Sequence[NoiseLevel],
    x: Tensor,
    noise: Callable[[], Tensor],
    watch: Watch | None = None,
) -> Tensor:
    """Walk x (B, …) from levels[0] to levels[-1]."""
    memory = None
    for now, to in pairwise(levels):
        x, memory = stepper.step(denoise, x, now, to, memory, noise)
        if watch is not None:
            watch(x, to)
    return x


@dataclass(frozen=True)
class Sampler:
    """A recipe for pictures: the step, how many of them at which levels, a threshold on x0.

    ``steps`` None takes every level of the schedule.
    """

    stepper: Stepper
    steps: Annotated[int, Field(ge=1)] | None = None
    spacing: Spacing = "uniform"
    threshold: Threshold | None = None

    @torch.inference_mode()
    def __call__(
        self,
        denoise: Denoise,
        schedule: NoiseSchedule,
        shape: Sequence[int],
        noise: Noise,
        watch: Watch | None = None,
    ) -> Tensor:
        """One picture (C, H, W) = shape for each id of ``noise``: (B, C, H, W) float32.

        A picture depends on its own id only, whatever else is in the batch.
        """
        levels = schedule.grid(self.steps, self.spacing)
        if self.threshold is not None:
            denoise = thresholded(denoise, self.threshold)
        scale = (levels[0].alpha ** 2 + levels[0].sigma ** 2).sqrt()
        x = noise.normal("x_T", shape) * scale.float()
        return sample(denoise, self.stepper, levels, x, noise.normals("sampler", shape), watch)
