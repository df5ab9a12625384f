"""What an objective is: a loss for each sample, and its weight in the mean."""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor

from unnoise.diffusion.denoiser import Denoiser
from unnoise.diffusion.levels import NoiseLevel
from unnoise.diffusion.noise import Noise
from unnoise.diffusion.schedules import NoiseSchedule


class Loss(NamedTuple):
    """For each sample (B,): the loss, the quantile u of its time, and its weight in the mean."""

    per_sample: Tensor
    u: Tensor
    weight: Tensor

    @property
    def mean(self) -> Tensor:
        """The weighted mean, which training minimises."""
        return (self.weight * self.per_sample).mean()


class Objective(ABC):
    """A loss on clean samples x0. ``trains_variance``: it trains the learned variance as well."""

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
        """The loss of each sample x0 at quantile u of the training times."""

    def level(self, schedule: NoiseSchedule, u: Float[Tensor, " B"]) -> NoiseLevel:
        """The noise levels of the samples with quantiles u."""
        return schedule.level(schedule.sample_times(u))
