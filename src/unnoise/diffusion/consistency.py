"""Consistency models: from any noise level to the picture in one call of the network.

The consistency function f maps x_t to the end of its path along the probability-flow ODE, so it is
the same at all levels of a path, and at the clean end f(x) = x (Song et al. 2023, "Consistency
models"). Its estimate is the denoiser's x0, but it is not E[x0 | x_t].
"""

import copy
import math
from typing import Annotated, Any

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from unnoise.config.numbers import Count
from unnoise.diffusion.denoiser import Denoised, Denoiser, Prediction
from unnoise.diffusion.levels import CLEAN, NoiseLevel, diffuse, match
from unnoise.diffusion.noise import Noise
from unnoise.diffusion.objectives import Noised, Objective
from unnoise.diffusion.schedules import LEAST_LOG_SNR, NoiseSchedule

MOST_ENLARGED = 10
"""How many times an error of the network's output may count in x0, where one step draws from."""


class ConsistencyLoss(Objective):
    """d(f(x_t, t), f(x_r, r))/(σ̂_t − σ̂_r), without a gradient through f(x_r, r).

    Easy consistency tuning (Geng et al. 2024, "Consistency models made easy", §3 and 4): x_t and
    x_r are made of the same picture and the same noise, both calls of the network have the same
    dropout, and the levels come closer while training goes on. With σ̂ = sigma/alpha, on any
    schedule, stage s has σ̂_r = σ̂_t·(1 − n/q^s), n = 1 + k/(1 + e^(b·σ̂_t)). Where that is below the
    schedule's cleanest level, f(x_r, r) is the picture itself: the boundary f(x) = x is exact, and
    stage 0 trains a diffusion model. Validation is always that of the last stage.

    Args:
        every: optimizer steps a stage.
        stages: the last stage, which stays.
        q: how many times closer each stage is.
        k, b: of n, which is greater for less noise.
        c: d is √(‖·‖² + c²) − c, pseudo-Huber, of the root mean square over elements (in Song &
            Dhariwal 2023 c is 0.00054 of it); None: d is ‖·‖², their mean square.
        diffusion_steps: optimizer steps of stage 0, if there is no diffusion model to start from.
    """

    def __init__(
        self,
        every: Count,
        stages: Count = 8,
        q: Annotated[float, Field(gt=1)] = 2.0,
        k: Annotated[float, Field(ge=0)] = 8.0,
        b: Annotated[float, Field(ge=0)] = 1.0,
        c: Annotated[float, Field(gt=0)] | None = None,
        diffusion_steps: Annotated[int, Field(ge=0)] = 0,
    ) -> None:
        self.every, self.stages, self.q, self.k, self.b, self.c = every, stages, q, k, b, c
        self.diffusion_steps = diffusion_steps
        self.stage = stages

    def at(self, step: int) -> "ConsistencyLoss":
        """The loss of optimizer step ``step``: that of its stage."""
        objective, tuned = copy.copy(self), step - self.diffusion_steps
        objective.stage = min(self.stages, 1 + tuned // self.every) if tuned >= 0 else 0
        return objective

    def __call__(
        self,
        denoiser: Denoiser,
        schedule: NoiseSchedule,
        x0: Float[Tensor, "B *shape"],
        u: Float[Tensor, " B"],
        condition: Any,
        noise: Noise,
    ) -> Float[Tensor, " B"]:
        """The loss of each sample x0 at quantile u of t."""
        noised = self.noised(schedule, x0, u, noise)
        r, is_clean = self.closer(schedule, noised.level)
        seed = int(torch.randint(2**62, ())) if denoiser.training else None  # of both dropouts
        estimates = _seeded(denoiser, seed, noised.x_t, noised.level, condition)
        if self.stage == 0:  # all targets are pictures
            return self.loss(estimates, noised, schedule)
        with torch.no_grad():  # second: autocast would keep the weights that it rounds in here
            target = _seeded(denoiser, seed, diffuse(x0, noised.eps, r), r, condition).x0
        target = torch.where(match(is_clean, x0) > 0, x0, target)
        return self.loss(estimates, noised._replace(x0=target), schedule)

    def loss(self, denoised: Denoised, noised: Noised, schedule: NoiseSchedule) -> Tensor:
        """The distance of x̂0 to ``noised.x0``, here f(x_r, r), over the gap between the levels."""
        ratio, sigma = self._ratio(schedule, noised.level)
        square = (denoised.x0 - noised.x0).square().flatten(1).mean(1)
        distance = square if self.c is None else (square + self.c**2).sqrt() - self.c
        return distance / (sigma * (1 - ratio)).to(square)

    def closer(self, schedule: NoiseSchedule, t: NoiseLevel) -> tuple[NoiseLevel, Tensor]:
        """Level r of each sample at level t, both (B,), and where it is the clean end, bool (B,).

        There the level is the cleanest of the schedule, so that the network can be called.
        """
        ratio, sigma = self._ratio(schedule, t)
        log_snr = -2 * (sigma.log() + ratio.log())
        return schedule.level(schedule.time_at(log_snr.clamp(max=_cleanest(schedule)))), ratio == 0

    def _ratio(self, schedule: NoiseSchedule, t: NoiseLevel) -> tuple[Tensor, Tensor]:
        """σ̂_r/σ̂_t, and σ̂_t, which is e^7 where nothing is left of the picture.

        The ratio is 0 where r would be cleaner than the schedule's last level.
        """
        sigma = (t.sigma / t.alpha).clamp(max=math.exp(-LEAST_LOG_SNR / 2))
        n = 1 + self.k * torch.sigmoid(-self.b * sigma)
        ratio = 1 - n / self.q**self.stage
        is_clean = ratio * sigma < math.exp(-_cleanest(schedule) / 2)
        return torch.where(is_clean, 0, ratio), sigma


def _cleanest(schedule: NoiseSchedule) -> float:
    """The greatest ln SNR of the schedule's levels."""
    return float(schedule.level(torch.tensor(schedule.ends[1], dtype=torch.float64)).log_snr)


def _seeded(denoiser: Denoiser, seed: int | None, *arguments: Any) -> Denoised:
    """A call of the denoiser whose dropout is that of ``seed``, on any device."""
    if seed is not None:
        torch.manual_seed(seed)
    estimates: Denoised = denoiser(*arguments)
    return estimates


def check_consistency(prediction: Prediction, schedule: NoiseSchedule) -> None:
    """Whether f(x) = x at the clean end, whatever the network says, and one step can be drawn.

    Raises:
        ValueError: it is not so.
    """
    name = type(prediction).__name__
    skip, out, _ = prediction.coefficients(CLEAN.alpha, CLEAN.sigma)
    if (float(skip), float(out)) != (1, 0):
        raise ValueError(
            f"{name} does not give back a clean picture whatever the network says, as a "
            "consistency function must: use edm, v or flow"
        )
    last = schedule.grid(1)[0]
    enlarged = abs(float(prediction.coefficients(last.alpha, last.sigma)[1]))
    if not enlarged <= MOST_ENLARGED:
        raise ValueError(
            f"{name} enlarges the network's errors {enlarged:,.0f} times at the noisiest level, "
            "from which a consistency model draws in one step: use edm, v or flow"
        )
