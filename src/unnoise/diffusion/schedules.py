"""Noise schedules: which levels there are, which ones training draws, which ones sampling visits.

A new schedule is a function that returns a DiscreteSchedule, or a class with the methods of
NoiseSchedule. Tables are float64: in float32 the posterior mean is wrong by 1e-4.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Annotated, Literal

import torch
from jaxtyping import Float64, Int64
from pydantic import Field
from torch import Tensor

from unnoise.diffusion.noise_level import CLEAN, NoiseLevel

Spacing = Literal["uniform", "quadratic"]
Steps = Annotated[int, Field(ge=1)]
Beta = Annotated[float, Field(gt=0, lt=1)]


class NoiseSchedule(ABC):
    """The levels of a diffusion process."""

    @abstractmethod
    def level(self, t: Tensor) -> NoiseLevel:
        """The level at times t, of any shape."""

    @abstractmethod
    def sample_times(self, u: Tensor) -> Tensor:
        """Training times from u ~ U[0, 1), (B,) to (B,)."""

    @abstractmethod
    def grid(self, steps: int | None, spacing: Spacing) -> list[NoiseLevel]:
        """steps + 1 levels from pure noise down to CLEAN; None takes as many as the process has.

        Raises:
            ValueError: more steps than the process has.
        """


class DiscreteSchedule(NoiseSchedule):
    """DDPM's T levels, from their β_1 … β_T; index t = 0 … T−1 is the papers' t = 1 … T.

    alpha_t² = ᾱ_t = Π_{i≤t} (1 − β_i), sigma_t² = 1 − ᾱ_t (DDPM eq. 4).

    Raises:
        ValueError: a β outside (0, 1).
    """

    def __init__(self, betas: Float64[Tensor, " T"]) -> None:
        if not bool(((betas > 0) & (betas < 1)).all()):
            raise ValueError(
                f"every beta must lie in (0, 1); found {betas.min():.3g} … {betas.max():.3g}"
            )
        self.betas = betas
        self.alphas_cumprod = torch.cumprod(1 - betas, 0)
        self._tables: dict[torch.device, tuple[Tensor, Tensor]] = {}

    @property
    def T(self) -> int:  # noqa: N802
        """The number of levels."""
        return len(self.betas)

    def level(self, t: Int64[Tensor, "..."]) -> NoiseLevel:
        """The level at indices t in 0 … T−1."""
        if t.device not in self._tables:
            dtype = torch.float32 if t.device.type == "mps" else torch.float64
            self._tables[t.device] = (
                self.alphas_cumprod.sqrt().to(t.device, dtype),
                (1 - self.alphas_cumprod).sqrt().to(t.device, dtype),
            )
        alphas, sigmas = self._tables[t.device]
        return NoiseLevel(t.float(), alphas[t], sigmas[t])

    def sample_times(self, u: Tensor) -> Int64[Tensor, " B"]:
        """Indices uniform on 0 … T−1 (DDPM algorithm 1, line 3)."""
        return (u * self.T).long().clamp(max=self.T - 1)

    def grid(self, steps: int | None = None, spacing: Spacing = "uniform") -> list[NoiseLevel]:
        """Indices T−1 … 0 at equal distances, or at equal distances of √t, and then CLEAN.

        "quadratic" puts more of the steps near the picture (DDIM, appendix D.2; its code starts at
        0.8·T, this grid always at T−1, where x_T is noise).
        """
        steps = self.T if steps is None else steps
        if not 1 <= steps <= self.T:
            raise ValueError(f"{steps} steps asked of a schedule with T={self.T}: use 1 … {self.T}")
        power = {"uniform": 1, "quadratic": 2}[spacing]
        ends = torch.linspace((self.T - 1) ** (1 / power), 0, steps, dtype=torch.float64)
        times = (ends**power).round().long().flip(0)
        k = torch.arange(steps)
        times = torch.maximum(torch.cummax(times - k, 0).values + k, k)  # no index twice
        return [self.level(t) for t in times.flip(0)] + [CLEAN]


def linear(T: Steps = 1000, beta_1: Beta = 1e-4, beta_T: Beta = 0.02) -> DiscreteSchedule:
    """β_t linear in t: DDPM's schedule (Ho et al. 2020, §4)."""
    return DiscreteSchedule(torch.linspace(beta_1, beta_T, T, dtype=torch.float64))


def quadratic(T: Steps = 1000, beta_1: Beta = 1e-4, beta_T: Beta = 0.02) -> DiscreteSchedule:
    """√β_t linear in t; with 0.00085 … 0.012 it is what latent diffusion calls "linear"."""
    return DiscreteSchedule(
        torch.linspace(math.sqrt(beta_1), math.sqrt(beta_T), T, dtype=torch.float64) ** 2
    )


def constant(T: Steps = 1000, beta: Beta = 0.01) -> DiscreteSchedule:
    """β_t = β, so that ᾱ_t = (1 − β)^t."""
    return DiscreteSchedule(torch.full((T,), beta, dtype=torch.float64))


def cosine(
    T: Steps = 1000, s: Annotated[float, Field(ge=0)] = 0.008, max_beta: Beta = 0.999
) -> DiscreteSchedule:
    """ᾱ(τ) = cos²(π/2·(τ + s)/(1 + s)) up to scale (Nichol & Dhariwal 2021, eq. 17)."""
    return _from_alpha_bar(lambda tau: ((tau + s) / (1 + s) * math.pi / 2).cos() ** 2, T, max_beta)


def sigmoid(
    T: Steps = 1000,
    start: float = -3.0,
    end: float = 3.0,
    temperature: Annotated[float, Field(gt=0)] = 1.0,
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


def _from_alpha_bar(
    alpha_bar: Callable[[Tensor], Tensor], T: int, max_beta: float
) -> DiscreteSchedule:
    """β_t = 1 − ᾱ(t/T)/ᾱ((t−1)/T), at most max_beta."""
    values = alpha_bar(torch.linspace(0, 1, T + 1, dtype=torch.float64))
    return DiscreteSchedule((1 - values[1:] / values[:-1]).clamp(max=max_beta))
