"""Training objectives: the loss of a denoiser on each noisy sample, and its weight in the mean."""

from abc import ABC, abstractmethod
from typing import Annotated, Any, NamedTuple

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from unnoise.diffusion.denoiser import Denoised, Denoiser
from unnoise.diffusion.levels import NoiseLevel, Variance, diffuse
from unnoise.diffusion.likelihood import decoder_term, step_term
from unnoise.diffusion.noise import Noise
from unnoise.diffusion.schedules import NoiseSchedule
from unnoise.diffusion.weights import Weight


class Loss(NamedTuple):
    """For each sample (B,): the loss, the quantile u of its time, and its weight in the mean."""

    per_sample: Tensor
    u: Tensor
    weight: Tensor

    @property
    def mean(self) -> Tensor:
        """The weighted mean, which training minimises."""
        return (self.weight * self.per_sample).mean()


class Noised(NamedTuple):
    """Samples x_t = alpha·x0 + sigma·eps, each (B, …), at quantiles u (B,) of the times."""

    x0: Tensor
    eps: Tensor
    x_t: Tensor
    level: NoiseLevel
    u: Tensor


class Objective(ABC):
    """A loss on clean samples x0. ``trains_variance``: it trains the learned variance as well."""

    trains_variance: bool = False

    def __call__(
        self,
        denoiser: Denoiser,
        schedule: NoiseSchedule,
        x0: Float[Tensor, "B *shape"],
        u: Float[Tensor, " B"],
        condition: Any,
        noise: Noise,
    ) -> Float[Tensor, " B"]:
        """The loss of each sample x0 at quantile u (DDPM algorithm 1, lines 3 to 5).

        Raises:
            ValueError: it trains a variance that the denoiser does not learn.
        """
        if self.trains_variance and not denoiser.learned_variance:
            raise ValueError("the objective trains a learned variance: set learned_variance=true")
        noised = self.noised(schedule, x0, u, noise)
        return self.loss(denoiser(noised.x_t, noised.level, condition), noised, schedule)

    @abstractmethod
    def loss(self, denoised: Denoised, noised: Noised, schedule: NoiseSchedule) -> Tensor:
        """How wrong the estimates of each sample are: (B,)."""

    def at(self, step: int) -> "Objective":
        """The objective of optimizer step ``step`` = 0, 1, …: itself, unless it has a schedule."""
        return self

    def noised(self, schedule: NoiseSchedule, x0: Tensor, u: Tensor, noise: Noise) -> Noised:
        """The samples x0 (B, …) with noise, at quantiles u (B,)."""
        level = self.level(schedule, u)
        eps = noise.normal("eps", x0.shape[1:])
        x_t = diffuse(x0, eps, level)
        return Noised(x0, eps, x_t, level, u)

    def level(self, schedule: NoiseSchedule, u: Float[Tensor, " B"]) -> NoiseLevel:
        """The noise levels of the samples with quantiles u."""
        return schedule.level(schedule.sample_times(u))


class SimpleLoss(Objective):
    """L_simple = E ‖ε − ε_θ(√ᾱ_t·x0 + √(1−ᾱ_t)·ε, t)‖², mean over elements (DDPM algorithm 1)."""

    def loss(self, denoised: Denoised, noised: Noised, schedule: NoiseSchedule) -> Tensor:
        """‖ε − ε̂‖²."""
        return (noised.eps - denoised.eps).square().flatten(1).mean(1)


class WeightedLoss(Objective):
    """w(SNR)·‖x0 − x̂0‖², mean over elements."""

    def __init__(self, weight: Weight) -> None:
        self.weight = weight

    def loss(self, denoised: Denoised, noised: Noised, schedule: NoiseSchedule) -> Tensor:
        """The error of x0, computed from the error of v, which is accurate at every level.

        As x_t = alpha·x̂0 + sigma·ε̂, alpha·(eps − ε̂) − sigma·(x0 − x̂0) is
        −(alpha² + sigma²)/sigma times the error of x0.
        """
        x0, level = noised.x0, noised.level
        alpha, sigma = level.like(x0)
        error = alpha * (noised.eps - denoised.eps) - sigma * (x0 - denoised.x0)
        snr = (level.alpha / level.sigma) ** 2
        weight = self.weight(snr) * (level.sigma / (level.alpha**2 + level.sigma**2)) ** 2
        return weight.to(x0) * error.square().flatten(1).mean(1)


class VariationalBound(Objective):
    """L_vlb of pixels: T times the bound's term at one of the T levels of ``grid(None)``, bits/dim.

    Its mean over u is the bound on that grid, without L_T, which has no parameters.
    """

    def __init__(self, variance: Variance = "beta") -> None:
        self.variance = variance
        self.trains_variance = variance == "learned"

    def loss(self, denoised: Denoised, noised: Noised, schedule: NoiseSchedule) -> Tensor:
        """One term for each sample."""
        k = _index(schedule, noised.u)
        term = bound_term(denoised, schedule, noised.x0, noised.x_t, k, self.variance)
        return term.to(noised.x0)

    def level(self, schedule: NoiseSchedule, u: Float[Tensor, " B"]) -> NoiseLevel:
        """The level of ``grid(None)``; ValueError if there is only one."""
        if schedule.T < 2:
            raise ValueError(
                "the variational bound needs a schedule of at least two levels, T >= 2"
            )
        return schedule.level(_times(schedule, u)[_index(schedule, u)])


class HybridLoss(Objective):
    """L_simple + weight·L_vlb, in which L_vlb trains the variance only.

    Source: Nichol & Dhariwal 2021, "Improved DDPM", eq. 16; L_vlb has no gradient to the mean.
    """

    trains_variance = True

    def __init__(self, weight: Annotated[float, Field(gt=0)] = 0.001) -> None:
        self.weight = weight
        self.simple, self.bound = SimpleLoss(), VariationalBound("learned")

    def loss(self, denoised: Denoised, noised: Noised, schedule: NoiseSchedule) -> Tensor:
        """Both parts from one prediction."""
        fixed = denoised._replace(x0=denoised.x0.detach(), eps=denoised.eps.detach())
        simple = self.simple.loss(denoised, noised, schedule)
        return simple + self.weight * self.bound.loss(fixed, noised, schedule)

    def level(self, schedule: NoiseSchedule, u: Float[Tensor, " B"]) -> NoiseLevel:
        """The level of ``grid(None)``."""
        return self.bound.level(schedule, u)


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


def _index(schedule: NoiseSchedule, u: Tensor) -> Tensor:
    """Index k of a level of ``grid(None)``, 0 the cleanest, for each u (B,)."""
    return (u * schedule.T).long().clamp(max=schedule.T - 1)


def _times(schedule: NoiseSchedule, like: Tensor) -> Tensor:
    """The times of ``grid(None)``, cleanest first, on the device of ``like``."""
    return schedule.times(schedule.T, "uniform").flip(0).to(like.device)
