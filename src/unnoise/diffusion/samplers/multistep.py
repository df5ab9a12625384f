"""Multistep solvers, which reuse the estimates of earlier steps for a higher order.

In λ = ½·ln SNR and with h = λ_s − λ_t for a step from level t to s, the probability-flow ODE is
x_s = (sigma_s/sigma_t)·x_t + sigma_s·∫ e^λ·x0(x_λ, λ) dλ exactly (Lu et al. 2022b, "DPM-Solver++",
eq. 8). The solvers differ in how they approximate x0 within the integral.
"""

from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from unnoise.diffusion.levels import NoiseLevel
from unnoise.diffusion.samplers.base import Stepper, Walk


class Visit(NamedTuple):
    """What a solver keeps of a level: x (B, …) and the estimate of x0."""

    level: NoiseLevel
    x: Tensor
    x0: Tensor


class DPMSolver(Stepper):
    """DPM-Solver++ 2M and its SDE form (Lu et al. 2022b, algorithm 2 and appendix B).

    x_s = (sigma_s/sigma_t)·E^η·x_t + alpha_s·(1 − E^(1+η))·D + sigma_s·√(1 − E^(2η))·z, E = e^−h,
    D = x0 + (x0 − x0_before)/(2r), r = h_before/h. In the first and the last step D = x0.

    η = 0 is the ODE, η = 1 the reverse SDE (SDE-DPM-Solver++(2M)); between and above them η is τ²
    of Xue et al. 2023, "SA-Solver".
    """

    order = 2

    def __init__(self, eta: Annotated[float, Field(ge=0)] = 0.0) -> None:
        self.eta = eta

    def step(self, walk: Walk, x: Tensor, now: NoiseLevel, to: NoiseLevel) -> Tensor:
        """The three terms."""
        x0 = walk.denoise(x, now).x0
        D = x0
        if walk.memory is not None and to.sigma > 0:
            before: Visit = walk.memory
            r = (now.log_snr - before.level.log_snr) / (to.log_snr - now.log_snr)
            D = x0 + (0.5 / r).to(x) * (x0 - before.x0)
        walk.memory = Visit(now, x, x0)
        E = (now.alpha / now.sigma) * (to.sigma / to.alpha)
        x = (to.sigma / now.sigma * E**self.eta).to(x) * x
        x = x + (to.alpha * (1 - E ** (1 + self.eta))).to(x) * D
        variance = to.sigma**2 * (1 - E ** (2 * self.eta))
        return x + variance.sqrt().to(x) * walk.noise() if variance > 0 else x


class UniPC(Stepper):
    """UniPC-2: a predictor, and a corrector that costs no evaluation (Zhao et al. 2023, §3).

    Both are x_s = (sigma_s/sigma_t)·x_t + alpha_s·(1 − e^−h)·(x0 + Σ_k ρ_k·D_k), the paper's data
    prediction with B(h) = e^−h − 1 ("bh2"). The predictor has D_1 = (x0_before − x0)/r,
    r = (λ_before − λ_t)/h, and ρ_1 = ½. The corrector repeats the step once the estimate at s is
    known, with D_2 = x0_s − x0 and ρ from the paper's R·ρ = b. It raises the order by one. The
    first and the last step have a lower order.
    """

    order = 3

    def step(self, walk: Walk, x: Tensor, now: NoiseLevel, to: NoiseLevel) -> Tensor:
        """Correct the previous step, then predict the next."""
        past: tuple[Visit, ...] = walk.memory or ()
        x0 = walk.denoise(x, now).x0
        if past:
            x = _corrected(past, x0, now)
        past = (*past, Visit(now, x, x0))[-2:]
        walk.memory = past if now.alpha > 0 else None
        return _predicted(past, to)


def _predicted(past: tuple[Visit, ...], to: NoiseLevel) -> Tensor:
    """UniP of order 2; of order 1 in the first step, or if ``to`` is clean."""
    here = past[-1]
    if len(past) == 1 or to.sigma == 0:
        return _advance(here, to, here.x0)
    D_1 = (past[0].x0 - here.x0) / _ratio(past, to).to(here.x)
    return _advance(here, to, here.x0 + D_1 / 2)


def _corrected(past: tuple[Visit, ...], x0: Tensor, to: NoiseLevel) -> Tensor:
    """UniC: the previous step again, now with the estimate x0 at its end."""
    here = past[-1]
    D_2 = x0 - here.x0
    if len(past) == 1:
        return _advance(here, to, here.x0 + D_2 / 2)
    h, r = (to.log_snr - here.level.log_snr) / 2, _ratio(past, to)
    D_1 = (past[0].x0 - here.x0) / r.to(x0)
    phi_1 = torch.expm1(-h)
    phi_2 = phi_1 / -h - 1
    phi_3 = phi_2 / -h - 0.5
    b_1, b_2 = phi_2 / phi_1, 2 * phi_3 / phi_1  # ρ_1 + ρ_2 = b_1, r·ρ_1 + ρ_2 = b_2
    rho_1 = (b_1 - b_2) / (1 - r)
    return _advance(here, to, here.x0 + rho_1.to(x0) * D_1 + (b_1 - rho_1).to(x0) * D_2)


def _ratio(past: tuple[Visit, ...], to: NoiseLevel) -> Tensor:
    """r = (λ_before − λ_t)/h, which is negative."""
    before, here = past[0].level.log_snr, past[1].level.log_snr
    return (before - here) / (to.log_snr - here)


def _advance(here: Visit, to: NoiseLevel, x0: Tensor) -> Tensor:
    """The exact solution for a constant x0: (sigma_s/sigma_t)·x_t + alpha_s·(1 − e^−h)·x0."""
    ratio = to.sigma / here.level.sigma
    return ratio.to(x0) * here.x + (to.alpha - ratio * here.level.alpha).to(x0) * x0
