"""Noise schedules in continuous time, of score-based and flow models.

``T`` is only the default number of levels for a sampler. The network's time input changes about as
fast from level to level as DDPM's 0 … 999 (0 … 1000 for a flow, −1554 … 1096 for the default EDM
levels), so that the sinusoidal embedding can resolve neighbouring levels.
"""

import math

import torch
from torch import Tensor

from unnoise.config.numbers import Count, Positive
from unnoise.diffusion.levels import NoiseLevel
from unnoise.diffusion.schedules.base import (
    NoiseSchedule,
    Spacing,
    inside,
    precise,
)

CLEANEST_FLOW = 1e-3  # time of the cleanest level


class VarianceExploding(NoiseSchedule):
    """alpha = 1, so sigma is the level; its time is ln sigma, from sigma_max to sigma_min.

    The network's time input is 250·ln sigma, 1000·c_noise of Karras et al. 2022, Table 1.

    Raises:
        ValueError: sigma_min is not below sigma_max.
    """

    def __init__(self, sigma_min: float, sigma_max: float, T: int) -> None:
        if sigma_min >= sigma_max:
            raise ValueError(f"sigma_min {sigma_min} must be below sigma_max {sigma_max}")
        self.sigma_min, self.sigma_max, self.T = sigma_min, sigma_max, T

    @property
    def ends(self) -> tuple[float, float]:
        """(ln sigma_max, ln sigma_min)."""
        return math.log(self.sigma_max), math.log(self.sigma_min)

    def level(self, t: Tensor) -> NoiseLevel:
        """(alpha, sigma) = (1, exp t); training levels may lie beyond the ends."""
        sigma = precise(t).exp()
        return NoiseLevel((250 * t).float(), torch.ones_like(sigma), sigma)

    def time_at(self, log_snr: Tensor) -> Tensor:
        """−ln SNR / 2."""
        noisy, clean = self.ends
        return (-precise(log_snr) / 2).clamp(clean, noisy)


class EDMSchedule(VarianceExploding):
    """EDM: training draws ln sigma ~ N(P_mean, P_std²) (Karras et al. 2022, Table 1).

    The paper's sampling levels are those of spacing "karras".
    """

    even = False

    def __init__(
        self,
        sigma_min: Positive = 0.002,
        sigma_max: Positive = 80.0,
        P_mean: float = -1.2,
        P_std: Positive = 1.2,
        T: Count = 1000,
    ) -> None:
        super().__init__(sigma_min, sigma_max, T)
        self.P_mean, self.P_std = P_mean, P_std

    def sample_times(self, u: Tensor) -> Tensor:
        """P_mean + P_std·Φ⁻¹(u)."""
        z: Tensor = torch.special.ndtri(inside(u))
        return self.P_mean + self.P_std * z


class GeometricSchedule(VarianceExploding):
    """NCSN's levels, each the same multiple of the next (Song & Ermon 2019, §4).

    ``grid(None)`` visits T of them. Training draws from all of [sigma_min, sigma_max], uniform in
    ln sigma, while the paper draws one of T levels, so that any sampler may use any level. A good
    sigma_max is the distance between two samples (Song & Ermon 2020, technique 1).
    """

    def __init__(
        self, sigma_min: Positive = 0.02, sigma_max: Positive = 50.0, T: Count = 100
    ) -> None:
        super().__init__(sigma_min, sigma_max, T)

    def sample_times(self, u: Tensor) -> Tensor:
        """Uniform between the ends."""
        noisy, clean = self.ends
        return clean + (noisy - clean) * precise(u)


class RectifiedFlow(NoiseSchedule):
    """The straight path alpha = 1 − t, sigma = t of flow matching; t = 1 is pure noise.

    Training times are uniform; the network's time input is 1000·t. Source: Liu et al. 2023, "Flow
    straight and fast", with time reversed.
    """

    def __init__(self, T: Count = 1000) -> None:
        self.T = T

    @property
    def ends(self) -> tuple[float, float]:
        """(1, 0.001)."""
        return 1.0, CLEANEST_FLOW

    def level(self, t: Tensor) -> NoiseLevel:
        """(1 − t, t)."""
        sigma = precise(t)
        return NoiseLevel((1000 * t).float(), 1 - sigma, sigma)

    def time_at(self, log_snr: Tensor) -> Tensor:
        """t/(1 − t) = exp(−ln SNR / 2)."""
        noisy, clean = self.ends
        return (-precise(log_snr) / 2).sigmoid().clamp(clean, noisy)

    def sample_times(self, u: Tensor) -> Tensor:
        """Times in (0, 1): at t = 0 there is no noise to remove."""
        return inside(u)

    def times(self, steps: int, spacing: Spacing) -> Tensor:
        """As for any schedule; "uniform" gives 1, 1 − 1/steps, …, 1/steps: Euler's steps to 0."""
        if spacing != "uniform":
            return super().times(steps, spacing)
        return torch.arange(steps, 0, -1, dtype=torch.float64) / steps


class LogitNormalFlow(RectifiedFlow):
    """Training times t = sigmoid(mean + std·z), z ~ N(0, 1), on the same path: more in the middle.

    Source: Esser et al. 2024, "Scaling rectified flow transformers", §3.1 (Stable Diffusion 3).
    """

    even = False

    def __init__(self, mean: float = 0.0, std: Positive = 1.0, T: Count = 1000) -> None:
        super().__init__(T)
        self.mean, self.std = mean, std

    def sample_times(self, u: Tensor) -> Tensor:
        """sigmoid(mean + std·Φ⁻¹(u))."""
        z: Tensor = torch.special.ndtri(inside(u))
        return (self.mean + self.std * z).sigmoid()
