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
    """Of each sample (B,): the loss, the quantile u of its time, and its weight in the mean."""

    per_sample: Tensor
    u: Tensor
    weight: Tensor

    @property
    def mean(self) -> Tensor:
        """What training minimises."""
        return (self.weight * self.per_sample).mean()


class Objective(ABC):
    """A loss on clean pictures. ``trains_variance``: and on the learned variance."""

    trains_variance: bool = False

    @abstractmethod
    def __call__(
        self,
        denoiser: Denoiser,
        schedule: NoiseSchedule,
        x0: Float[Tensor, "B *shape"],
        u: Float[Tensor, " B"],
        condition: Any,
        noise: Noise,
    ) -> Float[Tensor, " B"]:
        """The loss of each picture x0 at quantile u of the training times."""


class SimpleLoss(Objective):
    """L_simple = E ‖ε − ε_θ(√ᾱ_t·x0 + √(1−ᾱ_t)·ε, t)‖², mean over pixels (DDPM algorithm 1)."""

    def __call__(
        self,
        denoiser: Denoiser,
        schedule: NoiseSchedule,
        x0: Float[Tensor, "B *shape"],
        u: Float[Tensor, " B"],
        condition: Any,
        noise: Noise,
    ) -> Float[Tensor, " B"]:
        """Algorithm 1, lines 3 to 5."""
        level = schedule.level(schedule.sample_times(u))
        eps = noise.normal("eps", x0.shape[1:])
        eps_hat = denoiser(diffuse(x0, eps, level), level, condition).eps
        loss: Tensor = (eps - eps_hat).square().flatten(1).mean(1)
        return loss
