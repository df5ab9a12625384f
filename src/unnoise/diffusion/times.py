"""Training times: where on the schedule each sample of a batch is denoised.

Times are drawn as quantiles u in [0, 1), which a schedule turns into its own times, so that every
way of drawing works with every schedule.
"""

from abc import ABC, abstractmethod
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from unnoise.diffusion.noise import Noise

BELOW_ONE = 1 - 2.0**-24  # the greatest float32 below 1


class TimeSampler(nn.Module, ABC):
    """Draws the quantile of each sample's training time. ``learns``: from the losses there."""

    learns: ClassVar[bool] = False

    @abstractmethod
    def draw(self, noise: Noise) -> tuple[Tensor, Tensor]:
        """u (B,) and weights 1/density(u) (B,), with which a mean is one over uniform u."""

    def observe(self, u: Tensor, loss: Tensor) -> None:
        """Learn from the losses (B,) at u of a training batch, over all processes."""


class UniformTimes(TimeSampler):
    """u ~ U[0, 1) for each sample by itself (DDPM algorithm 1, line 3)."""

    def draw(self, noise: Noise) -> tuple[Tensor, Tensor]:
        """Weights are 1."""
        u = noise.uniform("time")
        return u, torch.ones_like(u)


class StratifiedTimes(TimeSampler):
    """u = ((p mod strata) + U)/strata for the sample at place p of the training stream.

    Any ``strata`` consecutive places, such as those of a batch, fill [0, 1) evenly: the mean loss
    varies less and u alone is as uniform as before (in the spirit of the low-discrepancy sampler
    of Kingma et al. 2021, "Variational diffusion models").
    """

    def __init__(self, strata: Annotated[int, Field(ge=1)]) -> None:
        super().__init__()
        self.strata = strata

    def draw(self, noise: Noise) -> tuple[Tensor, Tensor]:
        """Weights are 1."""
        u = (noise.ids % self.strata + noise.uniform("time")) / self.strata
        return u.clamp(max=BELOW_ONE), torch.ones_like(u)


class LossSecondMomentTimes(TimeSampler):
    """Times of great losses more often: density ∝ √E[L²] (Nichol & Dhariwal 2021, eq. 18).

    E[L²] is over the last ``history`` losses of each of ``bins`` equal parts of [0, 1). Until all
    have as many, u is uniform. ``uniform_share`` of the draws always is, so that none dies out.
    """

    learns = True
    losses: Tensor
    observed: Tensor

    def __init__(
        self,
        bins: Annotated[int, Field(ge=1)] = 100,
        history: Annotated[int, Field(ge=1)] = 10,
        uniform_share: Annotated[float, Field(gt=0, le=1)] = 0.001,
    ) -> None:
        super().__init__()
        self.bins, self.history, self.uniform_share = bins, history, uniform_share
        self.register_buffer("losses", torch.zeros(bins, history))
        self.register_buffer("observed", torch.zeros(bins, dtype=torch.int64))

    @property
    def probabilities(self) -> Tensor:
        """Of the bins (bins,), float64 on the CPU, where sums do not vary from run to run."""
        uniform = torch.full((self.bins,), 1 / self.bins, dtype=torch.float64)
        root = self.losses.cpu().double().square().mean(1).sqrt()
        if bool((self.observed < self.history).any()) or root.sum() == 0:
            return uniform
        return torch.lerp(root / root.sum(), uniform, self.uniform_share)

    def draw(self, noise: Noise) -> tuple[Tensor, Tensor]:
        """Quantiles of that density, by its inverse distribution function."""
        place = noise.uniform("time")
        p = self.probabilities
        upper = p.cumsum(0)
        p, lower, upper = (value.to(place) for value in (p, upper - p, upper))
        k = torch.searchsorted(upper, place, right=True).clamp(max=self.bins - 1)
        within = ((place - lower[k]) / p[k]).clamp(0, BELOW_ONE)
        return ((k + within) / self.bins).clamp(max=BELOW_ONE), 1 / (p[k] * self.bins)

    @torch.no_grad()
    def observe(self, u: Tensor, loss: Tensor) -> None:
        """Put each finite loss in the place of the oldest of its bin, in the order given."""
        u, loss = u[loss.isfinite()], loss[loss.isfinite()]
        bins, order = (u * self.bins).long().clamp(max=self.bins - 1).sort(stable=True)
        every = torch.arange(self.bins, device=u.device)
        first = torch.searchsorted(bins, every)
        seen = torch.searchsorted(bins, every, right=True) - first
        rank = torch.arange(len(u), device=u.device) - first[bins]
        newest = rank >= seen[bins] - self.history
        bins, rank, kept = bins[newest], rank[newest], order[newest]
        self.losses[bins, (self.observed[bins] + rank) % self.history] = loss[kept].float()
        self.observed += seen
