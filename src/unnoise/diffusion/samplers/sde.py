"""Stochastic samplers: the reverse SDE, Langevin dynamics, and both combined.

The score of p(x_t) is −ε/sigma_t.
"""

import math
from typing import Annotated

from pydantic import Field
from torch import Tensor

from unnoise.diffusion.levels import NoiseLevel, diffuse, transition
from unnoise.diffusion.samplers.base import Stepper, Walk
from unnoise.diffusion.samplers.ode import towards

Count = Annotated[int, Field(ge=1)]
StepSize = Annotated[float, Field(gt=0, lt=4)]
"""δ/sigma² of a Langevin step: stable below 4, and less biased the smaller it is."""


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
