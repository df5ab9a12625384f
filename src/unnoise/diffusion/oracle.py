"""Oracles: for independent Gaussian elements the optimal denoiser is known in closed form.

With x0 ~ N(μ, s²) and x_t = alpha·x0 + sigma·eps, x_t is N(alpha·μ, v), v = alpha²s² + sigma².
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from unnoise.diffusion.denoiser import Denoise, Denoised
from unnoise.diffusion.levels import NoiseLevel, match, posterior_variance, transition
from unnoise.diffusion.samplers import Stepper, Walk, sample
from unnoise.diffusion.schedules import NoiseSchedule


class GaussianOracle:
    """The optimal denoiser for x0 ~ N(mu, s²).

    ε* = sigma·(x − alpha·mu)/v and E[x0 | x_t] = (alpha·s²·x + sigma²·mu)/v.
    """

    def __init__(self, mu: float = 0.3, s: float = 0.25) -> None:
        self.mu, self.s = mu, s

    def __call__(self, x: Tensor, level: NoiseLevel) -> Denoised:
        """Estimates from x_t (B, …)."""
        alpha, sigma = (match(value, x) for value in (level.alpha, level.sigma))
        v = alpha**2 * self.s**2 + sigma**2
        eps = sigma * (x - alpha * self.mu) / v
        x0 = (alpha * self.s**2 * x + sigma**2 * self.mu) / v
        return Denoised(x0, eps)

    def marginal(self, level: NoiseLevel) -> tuple[float, float]:
        """Mean and variance of x_t at a level ()."""
        alpha, sigma = float(level.alpha), float(level.sigma)
        return alpha * self.mu, alpha**2 * self.s**2 + sigma**2

    def posterior_variance(self, level: NoiseLevel) -> Tensor:
        """Var(x0 | x_t) = s²·sigma²/v."""
        return self.s**2 * level.sigma**2 / (level.alpha**2 * self.s**2 + level.sigma**2)

    @property
    def entropy(self) -> float:
        """The entropy of an element, in nats: ½·ln(2πe·s²)."""
        return 0.5 * math.log(2 * math.pi * math.e * self.s**2)

    def along_the_ode(self, x: Tensor, now: NoiseLevel, to: NoiseLevel) -> Tensor:
        """x (B, …) moved along the probability-flow ODE, which keeps (x − alpha·mu)/√v constant."""
        (m_t, v_t), (m_s, v_s) = self.marginal(now), self.marginal(to)
        return m_s + (x - m_t) * math.sqrt(v_s / v_t)


def with_optimal_variance(oracle: GaussianOracle, levels: Sequence[NoiseLevel]) -> Denoise:
    """The oracle on a grid, with the fraction for which the learned variance is optimal.

    That is σ² = β̃ + c²·Var(x0 | x_t) with c = alpha_s·β/sigma_t², the weight of x0 in the posterior
    mean; p(x_s | x_t) then equals q(x_s | x_t) (Bao et al. 2022, "Analytic-DPM").
    """
    following = {float(t.t): s for t, s in pairwise(levels)}

    def denoise(x: Tensor, t: NoiseLevel) -> Denoised:
        s, denoised = following[float(t.t)], oracle(x, t)
        if s.sigma == 0:
            return Denoised(denoised.x0, denoised.eps, torch.zeros_like(x))
        low, high = posterior_variance(t, s), transition(s, t)[1]
        on_x0 = s.alpha * high / t.sigma**2
        optimal = low + on_x0**2 * oracle.posterior_variance(t)
        fraction = (optimal / low).log() / (high / low).log()
        return Denoised(denoised.x0, denoised.eps, fraction.to(x).expand_as(x))

    return denoise


def exact_moments(
    stepper: Stepper,
    schedule: NoiseSchedule,
    levels: Sequence[NoiseLevel],
    mean: float = 0.0,
    variance: float = 1.0,
    oracle: Denoise | None = None,
    device: torch.device | None = None,
) -> tuple[float, float]:
    """Mean and variance of the final x from x_T ~ N(mean, variance); exact: x is affine in noise.

    One row of the batch has no noise; each other row has one unit of one draw. ``oracle`` is any
    denoiser that is affine in x, by default the Gaussian one. ``device`` must support float64.
    """
    denoise = oracle or GaussianOracle()
    draws = 0

    def count() -> Tensor:
        nonlocal draws
        draws += 1
        return torch.zeros(1, 1)

    sample(Walk(denoise, schedule, count), stepper, levels, torch.zeros(1, 1))
    units = torch.eye(draws + 2, dtype=torch.float64, device=device)[..., None]
    rows = iter(units[2:])
    x = sample(Walk(denoise, schedule, lambda: next(rows)), stepper, levels, mean + units[1])
    slopes = (x[1:] - x[0]).squeeze(-1)
    return float(x[0]), float(slopes[0] ** 2 * variance + (slopes[1:] ** 2).sum())
