"""What a noise schedule is: its levels, those that training draws, those that sampling visits.

A new schedule is a function that returns a DiscreteSchedule, or a subclass of NoiseSchedule.
"""

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch
from torch import Tensor

from unnoise.diffusion.denoiser import Prediction
from unnoise.diffusion.levels import CLEAN, NoiseLevel

Spacing = Literal["uniform", "quadratic", "log_snr", "karras", "training", "leading", "trailing"]
RHO = 7  # of Karras et al. 2022
LEAST_LOG_SNR = -14.0  # alpha is 0.001 there: spacings by SNR start here if the SNR starts at 0
HALF_A_DRAW = 2.0**-25  # half the least uniform draw above 0


def precise(x: Tensor) -> Tensor:
    """x in float64; in float32 on a device without float64 (MPS)."""
    return x.to(torch.float32 if x.device.type == "mps" else torch.float64)


def inside(u: Tensor) -> Tensor:
    """u kept away from 0 and 1, where the normal quantile is infinite, or no noise is left."""
    return precise(u).clamp(HALF_A_DRAW, 1 - HALF_A_DRAW)


class NoiseSchedule(ABC):
    """The levels of a diffusion process, at real times.

    ``T`` is the number of levels in ``grid(None)``. ``even``: training draws the levels of that
    grid alike, not some of them more often.
    """

    T: int
    even: ClassVar[bool] = True

    @property
    @abstractmethod
    def ends(self) -> tuple[float, float]:
        """Times of the noisiest and the cleanest level that sampling visits."""

    @abstractmethod
    def level(self, t: Tensor) -> NoiseLevel:
        """The level at times t, of any shape."""

    @abstractmethod
    def time_at(self, log_snr: Tensor) -> Tensor:
        """The inverse of ``level(t).log_snr``: float64 times, of any shape, within the ends."""

    @abstractmethod
    def sample_times(self, u: Tensor) -> Tensor:
        """Training times from u ~ U[0, 1), (B,) to (B,)."""

    def times(self, steps: int, spacing: Spacing) -> Tensor:
        """Times (steps,) of falling noise, including both ends.

        "uniform" and "quadratic": at equal distances of t, or of √t from the clean end (DDIM,
        appendix D.2). "log_snr": of ln SNR (Lu et al. 2022, DPM-Solver). "karras": of
        (sigma/alpha)^(1/7) (Karras et al. 2022, eq. 5). A single step starts at the noisy end.
        "training" is for few steps that each go all the way: the noisy end, and then the quantiles
        1 − k/steps of the training times, so that the clean end is none of them.
        "leading" and "trailing" are of discrete schedules.

        Raises:
            ValueError: the schedule has no such spacing.
        """
        if spacing in ("leading", "trailing"):
            raise ValueError(f"spacing {spacing} is for discrete schedules: use another")
        x = torch.linspace(1, 0, steps, dtype=torch.float64)
        first, last = torch.tensor(self.ends, dtype=torch.float64)
        if spacing == "training":
            u = 1 - torch.arange(1, steps, dtype=torch.float64) / steps
            quantiles = self.sample_times(u).to(first).clamp(last, first)
            return torch.cat((first[None], quantiles))
        if spacing in ("uniform", "quadratic"):
            power = 1 if spacing == "uniform" else 2
            times: Tensor = last + (first - last) * x**power
            return times
        ends = [self.level(t).log_snr for t in (first, last)]
        noisy, clean = ends[0].clamp(min=LEAST_LOG_SNR), ends[1]
        if spacing == "log_snr":
            return self.time_at(clean + (noisy - clean) * x)
        low, high = ((-each / 2 / RHO).exp() for each in (clean, noisy))  # (sigma/alpha)^(1/ρ)
        return self.time_at(-2 * RHO * (low + (high - low) * x).log())

    def grid(self, steps: int | None = None, spacing: Spacing = "uniform") -> list[NoiseLevel]:
        """steps + 1 levels from pure noise to CLEAN; None takes ``T``; ValueError if too many."""
        times = self.times(self.T if steps is None else steps, spacing)
        return [self.level(t) for t in times] + [CLEAN]


def check_prediction(prediction: Prediction, schedule: NoiseSchedule) -> None:
    """ValueError if the prediction divides by alpha = 0 at the noisiest level."""
    noisiest = schedule.grid(1)[0]
    if not all(bool(c.isfinite()) for c in prediction.coefficients(noisiest.alpha, noisiest.sigma)):
        raise ValueError(
            f"{type(prediction).__name__} cannot be used with this schedule: at its last level "
            "nothing is left of the picture (alpha = 0), so that the noise there says nothing "
            "about it; use v, x0 or flow"
        )


def same_path(one: NoiseSchedule, other: NoiseSchedule) -> bool:
    """Whether two schedules have a path in common.

    Which levels of it they visit does not matter: at equal SNR, alpha, sigma and what the network
    is given are equal.
    """
    both = one, other
    ends = [each.level(torch.tensor(each.ends, dtype=torch.float64)).log_snr for each in both]
    noisiest, cleanest = torch.stack(ends).clamp(min=LEAST_LOG_SNR).unbind(1)
    low, high = noisiest.max(), cleanest.min()
    log_snr = torch.lerp(low, high, torch.linspace(0, 1, 9, dtype=torch.float64))
    levels = [each.level(each.time_at(log_snr)) for each in both]
    return bool(low <= high) and all(torch.allclose(a, b) for a, b in zip(*levels, strict=True))
