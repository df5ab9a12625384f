"""Training times: where on the schedule each sample of a batch is denoised.

Times are drawn as quantiles u in [0, 1), which a schedule turns into its own times, so that every
way of drawing works with every schedule.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from unnoise.diffusion.random import Noise


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
