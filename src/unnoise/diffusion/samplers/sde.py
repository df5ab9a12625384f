"""Stochastic samplers: the reverse SDE, Langevin dynamics, and both in turn.

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
"""δ/sigma² of a Langevin step; below 4 it is stable, and the smaller the less biased."""


class EulerMaruyama(Stepper):
    """x_s = (1 − ln(alpha_t/alpha_s))·x_t − v·ε/sigma_t + √v·z (Song et al. 2021, eq. 6).

    The reverse SDE dx = [f·x − g²·score]dt + g dw with the integrals of f = d ln alpha/dt and of
    g² over the step; for the latter stands v, the variance of q(x_t | x_s). Where alpha_t = 0 the
    drift has no bound, and the step is Ancestral's with β̃, which is alpha_s·x0 + sigma_s·z there.
    The last step adds no noise.
    """

    def step(self, walk: Walk, x: Tensor, now: NoiseLevel, to: NoiseLevel) -> Tensor:
        """The three terms."""
        guess = walk.denoise(x, now)
        if now.alpha == 0:
            return diffuse(guess.x0, walk.noise(), to)
        v = transition(to, now)[1]
        growth = 1 - (now.alpha / to.alpha).log()
        x = growth.to(x) * x - (v / now.sigma).to(x) * guess.eps
        return x if to.sigma == 0 else x + v.sqrt().to(x) * walk.noise()


def langevin(walk: Walk, x: Tensor, level: NoiseLevel, step_size: float) -> Tensor:
    """One Langevin step at a level, which leads x towards p(x_t) from wherever it is.

    x + (δ/2)·score + √δ·z with δ = step_size·sigma² (Song & Ermon 2019, eq. 4).
    """
    eps, sigma = walk.denoise(x, level).eps, level.sigma.to(x)
    return x - step_size / 2 * sigma * eps + math.sqrt(step_size) * sigma * walk.noise()


class AnnealedLangevin(Stepper):
    """Langevin steps at every level, then on to the next one (Song & Ermon 2019, algorithm 1).

    Moving on leaves y = x/alpha as it is; from alpha_t = 0 it is Euler's step. The last move takes
    the guessed picture (Jolicoeur-Martineau et al. 2021), one evaluation more. What remains
    of error with many levels falls with step_size.

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
    """Any step, corrected by Langevin steps at the level it leads to (Song et al. 2021, alg. 1).

    Corrections lead x off a predictor's path, so that multistep solvers start afresh at every
    level, as in their first step. What remains of error with many levels falls with step_size. The
    paper sets that by its signal-to-noise ratio r; with ‖score‖ = ‖z‖/sigma_t its
    ε = 2·(r·‖z‖/‖score‖)² is step_size = 4·r², and so r = 0.16 is step_size = 0.1.

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
