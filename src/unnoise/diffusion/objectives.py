"""Objectives: what training minimises."""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor

from unnoise.diffusion.denoiser import Denoiser
from unnoise.diffusion.noise_level import diffuse
from unnoise.diffusion.random import Noise
from unnoise.diffusion.schedules import NoiseSchedule


class Loss(NamedTuple):
    """A loss a sample, and the quantile of the training times at which it was taken: both (B,)."""

    per_sample: Tensor
    u: Tensor


class Objective(ABC):
    """A loss on clean pictures."""

    @abstractmethod
    def __call__(
        self,
        denoiser: Denoiser,
        schedule: NoiseSchedule,
        x0: Float[Tensor, "B *shape"],
        condition: Any,
        noise: Noise,
    ) -> Loss:
        """The loss of each picture x0 at a level and with noise drawn from ``noise``."""


class SimpleLoss(Objective):
    """L_simple = E ‖ε − ε_θ(√ᾱ_t·x0 + √(1−ᾱ_t)·ε, t)‖², mean over pixels (DDPM algorithm 1)."""

    def __call__(
        self,
        denoiser: Denoiser,
        schedule: NoiseSchedule,
        x0: Float[Tensor, "B *shape"],
        condition: Any,
        noise: Noise,
    ) -> Loss:
        """Algorithm 1, lines 2 to 5."""
        u = noise.uniform("time")
        level = schedule.level(schedule.sample_times(u))
        eps = noise.normal("eps", x0.shape[1:])
        eps_hat = denoiser(diffuse(x0, eps, level), level, condition).eps
        return Loss((eps - eps_hat).square().flatten(1).mean(1), u)
