"""L_simple, and weighted squared errors of x0."""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from unnoise.diffusion.denoiser import Denoiser
from unnoise.diffusion.levels import diffuse
from unnoise.diffusion.noise import Noise
from unnoise.diffusion.objectives.base import Objective
from unnoise.diffusion.schedules import NoiseSchedule
from unnoise.diffusion.weights import Weight


class SimpleLoss(Objective):
    """L_simple = E ‖ε − ε_θ(√ᾱ_t·x0 + √(1−ᾱ_t)·ε, t)‖², mean over elements (DDPM algorithm 1)."""

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


class WeightedLoss(Objective):
    """w(SNR)·‖x0 − x̂0‖², mean over elements."""

    def __init__(self, weight: Weight) -> None:
        self.weight = weight

    def __call__(
        self,
        denoiser: Denoiser,
        schedule: NoiseSchedule,
        x0: Float[Tensor, "B *shape"],
        u: Float[Tensor, " B"],
        condition: Any,
        noise: Noise,
    ) -> Float[Tensor, " B"]:
        """The error of x0, computed from the error of v, which is accurate at every level.

        As x_t = alpha·x̂0 + sigma·ε̂, alpha·(eps − ε̂) − sigma·(x0 − x̂0) is
        −(alpha² + sigma²)/sigma times the error of x0.
        """
        level = schedule.level(schedule.sample_times(u))
        eps = noise.normal("eps", x0.shape[1:])
        denoised = denoiser(diffuse(x0, eps, level), level, condition)
        alpha, sigma = level.like(x0)
        error = alpha * (eps - denoised.eps) - sigma * (x0 - denoised.x0)
        snr = (level.alpha / level.sigma) ** 2
        weight = self.weight(snr) * (level.sigma / (level.alpha**2 + level.sigma**2)) ** 2
        loss: Tensor = weight.to(x0) * error.square().flatten(1).mean(1)
        return loss
