"""Training times: the noise level at which each sample of a batch is denoised.

Times are drawn as quantiles u in [0, 1), which a schedule maps to its own times. So every way of
drawing works with every schedule.
"""

from abc import ABC, abstractmethod
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from unnoise.config.numbers import Count
from unnoise.diffusion.noise import Noise

BELOW_ONE = 1 - 2.0**-24  # the greatest float32 below 1


class TimeSampler(nn.Module, ABC):
    """Draws the quantile u of each sample's training time. ``learns``: adapts to the losses."""

    learns: ClassVar[bool] = False

    @abstractmethod
    def draw(self, noise: Noise) -> tuple[Tensor, Tensor]:
        """u (B,) and weights 1/density(u) (B,); a weighted mean equals the mean over uniform u."""

    def observe(self, u: Tensor, loss: Tensor) -> None:
        """Learn from the losses (B,) at u of a training batch, gathered over all ranks."""


class UniformTimes(TimeSampler):
    """u ~ U[0, 1), independent for each sample (DDPM algorithm 1, line 3)."""

    def draw(self, noise: Noise) -> tuple[Tensor, Tensor]:
        """Weights are 1."""
        u = noise.uniform("time")
        return u, torch.ones_like(u)


class StratifiedTimes(TimeSampler):
    """u = ((p mod strata) + U)/strata for the sample at position p of the training stream.

    Any ``strata`` consecutive positions, such as those of a batch, fill [0, 1) evenly. The mean
    loss then varies less, and each u is still uniform (similar to the low-discrepancy sampler of
    Kingma et al. 2021, "Variational diffusion models").
    """

    def __init__(self, strata: Count) -> None:
        super().__init__()
        self.strata = strata

    def draw(self, noise: Noise) -> tuple[Tensor, Tensor]:
        """Weights are 1."""
        u = (noise.ids % self.strata + noise.uniform("time")) / self.strata
        return u.clamp(max=BELOW_ONE), torch.ones_like(u)


class LossSecondMomentTimes(TimeSampler):
    """Importance sampling of times: density ∝ √E[L²] (Nichol & Dhariwal 2021, eq. 18).

    E[L²] is over the last ``history`` losses in each of ``bins`` equal parts of [0, 1). Until all
    parts have that many, u is uniform. ``uniform_share`` of the draws is always uniform, so that
    every part is visited.
    """

    learns = True
    losses: Tensor
    observed: Tensor

    def __init__(
        self,
        bins: Count = 100,
        history: Count = 10,
        uniform_share: Annotated[float, Field(gt=0, le=1)] = 0.001,
    ) -> None:
        super().__init__()
        self.bins, self.history, self.uniform_share = bins, history, uniform_share
        self.register_buffer("losses", torch.zeros(bins, history))
        self.register_buffer("observed", torch.zeros(bins, dtype=torch.int64))

    @property
    def probabilities(self) -> Tensor:
        """Of each bin, (bins,), float64 on the CPU, where sums are reproducible."""
        uniform = torch.full((self.bins,), 1 / self.bins, dtype=torch.float64)
        root = self.losses.cpu().double().square().mean(1).sqrt()
        if bool((self.observed < self.history).any()) or root.sum() == 0:
            return uniform
        return torch.lerp(root / root.sum(), uniform, self.uniform_share)

    def draw(self, noise: Noise) -> tuple[Tensor, Tensor]:
        """Samples of that density, by its inverse distribution function."""
        place = noise.uniform("time")
        p = self.probabilities
        upper = p.cumsum(0)
        p, lower, upper = (value.to(place) for value in (p, upper - p, upper))
        k = torch.searchsorted(upper, place, right=True).clamp(max=self.bins - 1)
        within = ((place - lower[k]) / p[k]).clamp(0, BELOW_ONE)
        return ((k + within) / self.bins).clamp(max=BELOW_ONE), 1 / (p[k] * self.bins)

    @torch.no_grad()
    def observe(self, u: Tensor, loss: Tensor) -> None:
        """Replace the oldest loss of a bin by each finite new one, in the order given."""
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
