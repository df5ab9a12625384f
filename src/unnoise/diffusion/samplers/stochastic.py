"""Stochastic samplers: ancestral, the reverse SDE, Langevin dynamics, and combinations.

x is at level t (``now``); the step leads to s (``to``). The score of p(x_t) is −ε/sigma_t.
"""

import math
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from unnoise.config.numbers import Count
from unnoise.diffusion.levels import (
    NoiseLevel,
    Variance,
    diffuse,
    posterior,
    posterior_variance,
    reverse_variance,
    transition,
)
from unnoise.diffusion.samplers.base import Stepper, Walk
from unnoise.diffusion.samplers.ode import towards

StepSize = Annotated[float, Field(gt=0, lt=4)]
"""δ/sigma² of a Langevin step: stable below 4, and less biased the smaller it is."""


class Ancestral(Stepper):
    """DDPM's algorithm 2: draw x_s from N(mean of q(x_s | x_t, x0), σ²·I).

    In terms of ε the mean is (x_t − β_t/√(1−ᾱ_t)·ε)/√(1−β_t). variance: "beta", σ² = β (optimal for
    data N(0, I)); "posterior", σ² = β̃ (optimal for one data point); "learned", between the two as
    the network predicts; "none", σ² = 0, the ablation in which samples lose their detail and
    collapse to the mean. The last step adds no noise.
    """

    def __init__(self, variance: Variance | Literal["none"] = "beta") -> None:
        self.variance = variance

    def step(self, walk: Walk, x: Tensor, now: NoiseLevel, to: NoiseLevel) -> Tensor:
        """mean + σ·z."""
        denoised = walk.denoise(x, now)
        mean = posterior(denoised.x0, x, now, to).mean
        if self.variance == "none" or to.sigma == 0:
            return mean
        variance = reverse_variance(self.variance, now, to, denoised.variance_fraction)
        return mean + variance.sqrt().to(x) * walk.noise()


class DDIM(Stepper):
    """x_s = alpha_s·x0 + √(sigma_s² − σ²)·ε + σ·z, with σ² = η²·β̃ (Song et al. 2021, eq. 12, 16).

    η = 0 is deterministic; η = 1 is DDPM with σ² = β̃.
    """

    def __init__(self, eta: Annotated[float, Field(ge=0, le=1)] = 0.0) -> None:
        self.eta = eta

    def step(self, walk: Walk, x: Tensor, now: NoiseLevel, to: NoiseLevel) -> Tensor:
        """The three terms of eq. 12."""
        denoised = walk.denoise(x, now)
        variance = self.eta**2 * posterior_variance(now, to)
        direct = (to.sigma**2 - variance).clamp(min=0)  # rounding can make it negative
        x = to.alpha.to(x) * denoised.x0 + direct.sqrt().to(x) * denoised.eps
        return x + variance.sqrt().to(x) * walk.noise() if variance > 0 else x


class EulerMaruyama(Stepper):
    """x_s = (1 − ln(alpha_t/alpha_s))·x_t − v·ε/sigma_t + √v·z (Song et al. 2021, eq. 6).

    The reverse SDE dx = [f·x − g²·score]dt + g dw with the integrals of f = d ln alpha/dt and of
    g² over the step; the latter is v, the variance of q(x_t | x_s). Where alpha_t = 0 the drift is
    unbounded, and the step is Ancestral's with β̃, there alpha_s·x0 + sigma_s·z. The last step adds
    no noise.
    """

    def step(self, walk: Walk, x: Tensor, now: NoiseLevel, to: NoiseLevel) -> Tensor:
        """The three terms."""
        denoised = walk.denoise(x, now)
        if now.alpha == 0:
            return diffuse(denoised.x0, walk.noise(), to)
        v = transition(to, now)[1]
        growth = 1 - (now.alpha / to.alpha).log()
        x = growth.to(x) * x - (v / now.sigma).to(x) * denoised.eps
        return x if to.sigma == 0 else x + v.sqrt().to(x) * walk.noise()


def langevin(walk: Walk, x: Tensor, level: NoiseLevel, step_size: float) -> Tensor:
    """One Langevin step at a level, which moves x towards p(x_t).

    x + (δ/2)·score + √δ·z with δ = step_size·sigma² (Song & Ermon 2019, eq. 4).
    """
    eps, sigma = walk.denoise(x, level).eps, level.sigma.to(x)
    return x - step_size / 2 * sigma * eps + math.sqrt(step_size) * sigma * walk.noise()


class Consistency(Stepper):
    """x_s = alpha_s·x0 + sigma_s·z: the picture in one call, and noise on it for the next.

    For consistency models (Song et al. 2023, algorithm 1), whose estimate of x0 is a sample, not a
    mean. It goes all the way in each step, so the levels should leave room for the next one to
    correct, as those of spacing "training" do.
    """

    order = 0

    def step(self, walk: Walk, x: Tensor, now: NoiseLevel, to: NoiseLevel) -> Tensor:
        """The estimate, noised to the level; at CLEAN the estimate itself."""
        x0 = walk.denoise(x, now).x0
        return x0 if to.sigma == 0 else diffuse(x0, walk.noise(), to)


class AnnealedLangevin(Stepper):
    """Langevin steps at every level, then a move to the next (Song & Ermon 2019, algorithm 1).

    A move keeps y = x/alpha; from alpha_t = 0 it is Euler's step. The last move returns the
    estimate of x0 (Jolicoeur-Martineau et al. 2021), with one more evaluation. The error that
    remains with many levels falls with step_size.

    Args:
        steps_per_level: T of the paper.
        step_size: δ/sigma², the paper's ε/σ_L².
    """

    order = 0

    def __init__(self, steps_per_level: Count = 5, step_size: StepSize = 0.5) -> None:
        self.evaluations, self.step_size = steps_per_level, step_size

    def step(self, walk: Walk, x: Tensor, now: NoiseLevel, to: NoiseLevel) -> Tensor:
        """The steps at ``now``, and the move to ``to``."""
        for _ in range(self.evaluations):
            x = langevin(walk, x, now, self.step_size)
        if to.sigma > 0 and now.alpha > 0:
            return (to.alpha / now.alpha).to(x) * x
        return towards(walk.denoise(x, now), to)


class PredictorCorrector(Stepper):
    """Any step, followed by Langevin steps at its new level (Song et al. 2021, algorithm 1).

    Corrections move x off the predictor's path, so multistep solvers start again at every level,
    as in their first step. The error that remains with many levels falls with step_size. The paper
    sets it by a signal-to-noise ratio r; with ‖score‖ = ‖z‖/sigma_t its ε = 2·(r·‖z‖/‖score‖)² is
    step_size = 4·r², so r = 0.16 is step_size = 0.1.

    Args:
        predictor: the step.
        corrections: M of the paper, after every step but the last.
        step_size: δ/sigma².
    """

    order = 0

    def __init__(
        self, predictor: Stepper, corrections: Count = 1, step_size: StepSize = 0.1
    ) -> None:
        self.predictor, self.corrections, self.step_size = predictor, corrections, step_size
        self.evaluations = predictor.evaluations + corrections

    def step(self, walk: Walk, x: Tensor, now: NoiseLevel, to: NoiseLevel) -> Tensor:
        """The predictor's step, then the corrections."""
        x = self.predictor.step(walk, x, now, to)
        if to.sigma > 0:
            for _ in range(self.corrections):
                x = langevin(walk, x, to, self.step_size)
            walk.memory = None
        return x
