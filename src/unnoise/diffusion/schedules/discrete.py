"""Noise schedules in discrete time, of DDPM and its successors.

Tables are float64: in float32 the posterior mean is wrong by 1e-4.
"""

import math
from collections.abc import Callable, Sequence
from typing import Annotated

import torch
from jaxtyping import Float64, Int64, Shaped
from pydantic import Field
from torch import Tensor

from unnoise.config.numbers import Count, Positive
from unnoise.diffusion.levels import NoiseLevel
from unnoise.diffusion.schedules.base import (
    NoiseSchedule,
    Spacing,
    inside,
    precise,
)

Beta = Annotated[float, Field(gt=0, lt=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class DiscreteSchedule(NoiseSchedule):
    """DDPM's T levels, from their β_1 … β_T; index t = 0 … T−1 is the papers' t = 1 … T.

    alpha_t² = ᾱ_t = Π_{i≤t} (1 − β_i), sigma_t² = 1 − ᾱ_t (DDPM eq. 4). Between two indices
    ln SNR is linear in t, so solvers may use any level.

    Raises:
        ValueError: a β outside (0, 1); only the last may be 1, where x_T is pure noise.
    """

    def __init__(self, betas: Float64[Tensor, " T"]) -> None:
        if not bool(((betas > 0) & (betas < 1))[:-1].all() and 0 < betas[-1] <= 1):
            raise ValueError(
                f"every beta must lie in (0, 1), not {betas.min():.3g} … {betas.max():.3g}"
            )
        self.betas = betas
        self.alphas_cumprod = torch.cumprod(1 - betas, 0)
        self.T = len(betas)
        alpha_bar = self.alphas_cumprod
        self._log_snrs = (alpha_bar.log() - torch.log1p(-alpha_bar)).clamp(min=-60)
        self._tables: dict[torch.device, tuple[Tensor, Tensor, Tensor]] = {}

    @property
    def ends(self) -> tuple[float, float]:
        """T − 1 and 0."""
        return self.T - 1.0, 0.0

    def level(self, t: Shaped[Tensor, "..."]) -> NoiseLevel:
        """The level at indices t in 0 … T−1, or at real times between them."""
        if t.device not in self._tables:
            dtype = precise(t).dtype
            self._tables[t.device] = (
                self.alphas_cumprod.sqrt().to(t.device, dtype),
                (1 - self.alphas_cumprod).sqrt().to(t.device, dtype),
                self._log_snrs.to(t.device, dtype),
            )
        alphas, sigmas, log_snrs = self._tables[t.device]
        if not t.is_floating_point():
            return NoiseLevel(t.float(), alphas[t], sigmas[t])
        below = t.long().clamp(0, max(self.T - 2, 0))
        above = (below + 1).clamp(max=self.T - 1)
        log_snr = torch.lerp(log_snrs[below], log_snrs[above], (t - below).to(log_snrs.dtype))
        return NoiseLevel(t.float(), log_snr.sigmoid().sqrt(), (-log_snr).sigmoid().sqrt())

    def time_at(self, log_snr: Tensor) -> Tensor:
        """Real times in [0, T − 1]."""
        rising = -self._log_snrs.to(log_snr)
        above = torch.searchsorted(rising, -log_snr.contiguous()).clamp(1, max(self.T - 1, 1))
        above = above.clamp(max=self.T - 1)
        below = (above - 1).clamp(min=0)
        width = (rising[above] - rising[below]).clamp(min=torch.finfo(rising.dtype).tiny)
        part = ((-log_snr - rising[below]) / width).clamp(0, 1)
        return below + part

    def sample_times(self, u: Tensor) -> Int64[Tensor, " B"]:
        """Indices uniform on 0 … T−1 (DDPM algorithm 1, line 3)."""
        return (u * self.T).long().clamp(max=self.T - 1)

    def times(self, steps: int, spacing: Spacing) -> Tensor:
        """As for any schedule; "uniform" and "quadratic" give distinct indices.

        DDIM's code starts its quadratic grid at 0.8·T; this one starts at T−1, at pure noise.
        "leading" visits k·⌊T/steps⌋, k < steps, which does not start at pure noise, and "trailing"
        T − k·T/steps − 1, rounded, which does (Lin et al. 2023, Table 2).
        """
        if not 1 <= steps <= self.T:
            raise ValueError(f"{steps} steps with a schedule of T={self.T}: use 1 … {self.T}")
        k = torch.arange(steps)
        if spacing == "leading":
            return k.flip(0) * (self.T // steps)
        if spacing == "trailing":
            return (self.T - k.double() * (self.T / steps)).round().long() - 1
        times = super().times(steps, spacing)
        if spacing not in ("uniform", "quadratic"):
            return times
        times = times.round().long().flip(0)
        times = torch.maximum(torch.cummax(times - k, 0).values + k, k)
        return times.flip(0)


class LogNormalSNR(DiscreteSchedule):
    """The levels of a discrete schedule, of which training draws ln SNR ~ N(mean, std²).

    EDM draws the levels so (Karras et al. 2022, §5 and Table 1, for ln sigma = −ln SNR / 2): few
    steps are spent where nothing or nearly all of the picture is left. What lies beyond the ends
    of the schedule is drawn there.

    Raises:
        ValueError: ``mean`` is not between the ends of the schedule.
    """

    even = False

    def __init__(self, schedule: DiscreteSchedule, mean: Finite = 0.0, std: Positive = 2.0) -> None:
        super().__init__(schedule.betas)
        cleanest, noisiest = (float(self._log_snrs[i]) for i in (0, -1))
        if not noisiest < mean < cleanest:
            raise ValueError(
                f"mean {mean:g} of ln SNR must lie between the ends of the schedule, "
                f"{noisiest:.3g} and {cleanest:.3g}"
            )
        self.mean, self.std = mean, std

    def sample_times(self, u: Tensor) -> Int64[Tensor, " B"]:
        """The index nearest to ln SNR = mean − std·Φ⁻¹(u): as u grows, so does the noise."""
        z: Tensor = torch.special.ndtri(inside(u))
        return self.time_at(self.mean - self.std * z).round().long()


def linear(T: Count = 1000, beta_1: Beta = 1e-4, beta_T: Beta = 0.02) -> DiscreteSchedule:
    """β_t linear in t: DDPM's schedule (Ho et al. 2020, §4)."""
    return DiscreteSchedule(torch.linspace(beta_1, beta_T, T, dtype=torch.float64))


def quadratic(T: Count = 1000, beta_1: Beta = 1e-4, beta_T: Beta = 0.02) -> DiscreteSchedule:
    """√β_t linear in t; latent diffusion's "linear" is this with 0.00085 … 0.012."""
    return DiscreteSchedule(
        torch.linspace(math.sqrt(beta_1), math.sqrt(beta_T), T, dtype=torch.float64) ** 2
    )


def constant(T: Count = 1000, beta: Beta = 0.01) -> DiscreteSchedule:
    """β_t = β, so ᾱ_t = (1 − β)^t."""
    return DiscreteSchedule(torch.full((T,), beta, dtype=torch.float64))


def cosine(
    T: Count = 1000, s: Annotated[float, Field(ge=0)] = 0.008, max_beta: Beta = 0.999
) -> DiscreteSchedule:
    """ᾱ(τ) = cos²(π/2·(τ + s)/(1 + s)) up to scale (Nichol & Dhariwal 2021, eq. 17)."""
    return _from_alpha_bar(lambda tau: ((tau + s) / (1 + s) * math.pi / 2).cos() ** 2, T, max_beta)


def sigmoid(
    T: Count = 1000,
    start: float = -3.0,
    end: float = 3.0,
    temperature: Positive = 1.0,
    max_beta: Beta = 0.999,
) -> DiscreteSchedule:
    """ᾱ(τ) = S(end) − S(start + (end − start)·τ) up to scale, S(x) = sigmoid(x/temperature).

    Source: Jabri, Fleet & Chen 2022, "Scalable adaptive computation", algorithm 3.

    Raises:
        ValueError: start is not below end.
    """
    if start >= end:
        raise ValueError(f"start {start} must be below end {end}")
    top = torch.tensor(end, dtype=torch.float64)
    return _from_alpha_bar(
        lambda tau: (
            ((top / temperature).sigmoid())
            - ((start + (end - start) * tau) / temperature).sigmoid()
        ),
        T,
        max_beta,
    )


def zero_terminal_snr(schedule: DiscreteSchedule) -> DiscreteSchedule:
    """√ᾱ_t shifted and stretched so that √ᾱ_1 stays and √ᾱ_T is 0 (Lin et al. 2023, algorithm 1).

    Training then includes pure noise, from which sampling starts. There ε does not determine x0:
    use a prediction of v, x0 or flow.

    Raises:
        ValueError: the schedule has only one level.
    """
    if schedule.T < 2:
        raise ValueError("zero terminal SNR needs a schedule with T of at least 2")
    root = schedule.alphas_cumprod.sqrt()
    alpha_bar = (root[0] * (root - root[-1]) / (root[0] - root[-1])) ** 2
    before = torch.cat((torch.ones_like(alpha_bar[:1]), alpha_bar[:-1]))
    return DiscreteSchedule(1 - alpha_bar / before)


def given(betas: Sequence[Annotated[float, Field(gt=0, le=1)]]) -> DiscreteSchedule:
    """β_1 … β_T as they are, of a model from elsewhere."""
    return DiscreteSchedule(torch.tensor(betas, dtype=torch.float64))


def _from_alpha_bar(
    alpha_bar: Callable[[Tensor], Tensor], T: int, max_beta: float
) -> DiscreteSchedule:
    """β_t = 1 − ᾱ(t/T)/ᾱ((t−1)/T), at most max_beta."""
    values = alpha_bar(torch.linspace(0, 1, T + 1, dtype=torch.float64))
    return DiscreteSchedule((1 - values[1:] / values[:-1]).clamp(max=max_beta))
