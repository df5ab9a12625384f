"""Solvers of the probability-flow ODE: the same noise always leads to the same sample.

With y = x/alpha and σ̂ = sigma/alpha the ODE of every schedule is dy/dσ̂ = ε(x, level) (Karras et
al. 2022, eq. 4 with s = alpha; Song, Meng & Ermon 2021, eq. 14). x is at level t and goes to s.
"""

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from unnoise.diffusion.denoiser import Denoised
from unnoise.diffusion.levels import NoiseLevel, diffuse, transition
from unnoise.diffusion.samplers.base import Stepper, Walk
from unnoise.diffusion.schedules import LEAST_LOG_SNR

Tolerance = Annotated[float, Field(gt=0)]


def towards(denoised: Denoised, to: NoiseLevel) -> Tensor:
    """x at another level for the same x0 and ε: alpha_s·x0 + sigma_s·ε."""
    return diffuse(denoised.x0, denoised.eps, to)


class Euler(Stepper):
    """y_s = y_t + (σ̂_s − σ̂_t)·ε, which is x_s = alpha_s·x0 + sigma_s·ε: DDIM with η = 0.

    The second form holds where alpha_t = 0 as well.
    """

    def step(self, walk: Walk, x: Tensor, now: NoiseLevel, to: NoiseLevel) -> Tensor:
        """alpha_s·x0 + sigma_s·ε."""
        return towards(walk.denoise(x, now), to)


class Heun(Stepper):
    """y_s = y_t + (σ̂_s − σ̂_t)·(ε_t + ε_s)/2, with churn (Karras et al. 2022, algorithm 2).

    ε_s is the estimate after Euler's step. Before the step, noise raises the level to
    (1 + gamma)·σ̂_t, but never above the schedule's noisiest. The last step, and a step from
    alpha_t = 0, is Euler's.

    Args:
        gamma: the paper's S_churn/N; 0 is the deterministic solver.
        S_tmin, S_tmax: levels σ̂ between which noise is added.
        S_noise: standard deviation of that noise; slightly above 1 restores lost detail.
    """

    order = 2
    evaluations = 2

    def __init__(
        self,
        gamma: Annotated[float, Field(ge=0, le=0.4143)] = 0.0,
        S_tmin: Annotated[float, Field(ge=0)] = 0.0,
        S_tmax: Annotated[float, Field(ge=0)] = math.inf,
        S_noise: Annotated[float, Field(gt=0)] = 1.0,
    ) -> None:
        self.gamma, self.S_tmin, self.S_tmax, self.S_noise = gamma, S_tmin, S_tmax, S_noise

    def step(self, walk: Walk, x: Tensor, now: NoiseLevel, to: NoiseLevel) -> Tensor:
        """Churn, Euler's step, and the trapezoid with the slope at its end."""
        if self.gamma > 0 and self.S_tmin <= now.sigma / now.alpha <= self.S_tmax:
            x, now = self._churn(walk, x, now)
        denoised = walk.denoise(x, now)
        x_s = towards(denoised, to)
        if to.sigma == 0 or now.alpha == 0:
            return x_s
        eps = (denoised.eps + walk.denoise(x_s, to).eps) / 2
        scale = to.alpha / now.alpha
        return scale.to(x) * x + (to.sigma - scale * now.sigma).to(x) * eps

    def _churn(self, walk: Walk, x: Tensor, now: NoiseLevel) -> tuple[Tensor, NoiseLevel]:
        """x with noise added, at (1 + gamma)·σ̂: lines 4 to 6 of algorithm 2."""
        t = walk.schedule.time_at(now.log_snr - 2 * math.log1p(self.gamma))
        raised = walk.schedule.level(t)
        scale, variance = transition(now, raised)
        if not variance > 0:  # now is the noisiest level
            return x, now
        z = self.S_noise * walk.noise()
        return scale.to(x) * x + variance.sqrt().to(x) * z, raised


class AdaptiveODE(Stepper):
    """dy/d ln σ̂ = σ̂·ε from one level to the next by Dormand & Prince's adaptive method.

    Two levels suffice: the method places its own steps between them, as many as the tolerances for
    y require. It chooses them for the whole batch, so a sample is the same in another batch only
    up to the tolerance. The step to CLEAN is Euler's; where alpha_t = 0, an Euler step leads to
    ln SNR = −14 first. ``order`` is that of the method; ``evaluations`` is not its real cost.
    """

    order = 5

    def __init__(self, rtol: Tolerance = 1e-4, atol: Tolerance = 1e-4) -> None:
        self.rtol, self.atol = rtol, atol

    def step(self, walk: Walk, x: Tensor, now: NoiseLevel, to: NoiseLevel) -> Tensor:
        """alpha_s·y(ln σ̂_s)."""
        level, time_at = walk.schedule.level, walk.schedule.time_at
        start = level(time_at(torch.tensor(LEAST_LOG_SNR, dtype=torch.float64)))
        if now.alpha == 0 and to.alpha > start.alpha:
            x, now = towards(walk.denoise(x, now), start), start
        if now.alpha == 0 or to.sigma == 0:
            return towards(walk.denoise(x, now), to)

        def slope(log_sigma: Tensor, y: Tensor) -> Tensor:
            at = level(time_at(-2 * log_sigma.cpu().double()))
            return (at.sigma / at.alpha).to(y) * walk.denoise(at.alpha.to(y) * y, at).eps

        ends = -torch.stack((now.log_snr, to.log_snr)) / 2
        from torchdiffeq import odeint  # which imports SciPy

        y: Tensor = odeint(
            slope,
            x / now.alpha.to(x),
            ends.to(x),
            rtol=self.rtol,
            atol=self.atol,
            method="dopri5",
            options={"dtype": x.dtype},
        )[-1]
        return to.alpha.to(x) * y
