"""The variational bound as an objective, alone or added to L_simple."""

from typing import Annotated, Any

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from unnoise.diffusion.denoiser import Denoised, Denoiser
from unnoise.diffusion.levels import NoiseLevel, Variance, diffuse
from unnoise.diffusion.likelihood import decoder_term, step_term
from unnoise.diffusion.noise import Noise
from unnoise.diffusion.objectives.base import Objective
from unnoise.diffusion.schedules import NoiseSchedule


class VariationalBound(Objective):
    """L_vlb of pixels: T times the bound's term at one of the T levels of ``grid(None)``, bits/dim.

    Its mean over u is the bound on that grid, without L_T, which has no parameters.
    """

    def __init__(self, variance: Variance = "beta") -> None:
        self.variance = variance
        self.trains_variance = variance == "learned"

    def __call__(
        self,
        denoiser: Denoiser,
        schedule: NoiseSchedule,
        x0: Float[Tensor, "B *shape"],
        u: Float[Tensor, " B"],
        condition: Any,
        noise: Noise,
    ) -> Float[Tensor, " B"]:
        """One term for each sample."""
        k, level = grid_level(schedule, u)
        x_t = diffuse(x0, noise.normal("eps", x0.shape[1:]), level)
        denoised = denoiser(x_t, level, condition)
        return bound_term(denoised, schedule, x0, x_t, k, self.variance).to(x0)

    def level(self, schedule: NoiseSchedule, u: Float[Tensor, " B"]) -> NoiseLevel:
        """The level of ``grid(None)``."""
        return grid_level(schedule, u)[1]


class HybridLoss(Objective):
    """L_simple + weight·L_vlb, in which L_vlb trains the variance only.

    Source: Nichol & Dhariwal 2021, "Improved DDPM", eq. 16; L_vlb has no gradient to the mean.
    """

    trains_variance = True

    def __init__(self, weight: Annotated[float, Field(gt=0)] = 0.001) -> None:
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
        """Both parts from one prediction, at a level of ``grid(None)``.

        Raises:
            ValueError: the denoiser has no learned variance.
        """
        if not denoiser.learned_variance:
            raise ValueError("the hybrid loss trains a learned variance: set learned_variance=true")
        k, level = grid_level(schedule, u)
        eps = noise.normal("eps", x0.shape[1:])
        x_t = diffuse(x0, eps, level)
        denoised = denoiser(x_t, level, condition)
        simple: Tensor = (eps - denoised.eps).square().flatten(1).mean(1)
        fixed = Denoised(denoised.x0.detach(), denoised.eps.detach(), denoised.variance_fraction)
        vlb = bound_term(fixed, schedule, x0, x_t, k, "learned")
        return simple + self.weight * vlb.to(simple)

    def level(self, schedule: NoiseSchedule, u: Float[Tensor, " B"]) -> NoiseLevel:
        """The level of ``grid(None)``."""
        return grid_level(schedule, u)[1]


def grid_level(schedule: NoiseSchedule, u: Tensor) -> tuple[Tensor, NoiseLevel]:
    """Index k of a level of ``grid(None)``, 0 the cleanest, and the level; u (B,) → (B,) each.

    Raises:
        ValueError: there is only one level.
    """
    if schedule.T < 2:
        raise ValueError("the variational bound needs a schedule of at least two levels, T >= 2")
    k = (u * schedule.T).long().clamp(max=schedule.T - 1)
    return k, schedule.level(_times(schedule, u)[k])


def bound_term(
    denoised: Denoised,
    schedule: NoiseSchedule,
    x0: Float[Tensor, "B *shape"],
    x_t: Float[Tensor, "B *shape"],
    k: Tensor,
    variance: Variance,
) -> Float[Tensor, " B"]:
    """T·L_{t−1} at level k of ``grid(None)``, for k = 0 T·L_0, in bits/dim."""
    times = _times(schedule, k)
    above = k.clamp(min=1)  # at k = 0, where L_0 is used, L_{t−1} need only be finite
    t, s = schedule.level(times[above]), schedule.level(times[above - 1])
    step = step_term(denoised, x0, x_t, t, s, variance)
    first, second = (schedule.level(times[i : i + 1].expand(len(k))) for i in (0, 1))
    decoder = decoder_term(denoised, x0, second, first, variance)
    return schedule.T * torch.where(k == 0, decoder, step)


def _times(schedule: NoiseSchedule, like: Tensor) -> Tensor:
    """The times of ``grid(None)``, cleanest first, on the device of ``like``."""
    return schedule.times(schedule.T, "uniform").flip(0).to(like.device)
