"""Consistency models of Gaussian data, whose path along the ODE has a closed form."""

from functools import partial

import torch
from torch import Tensor, nn

from unnoise.diffusion import schedules
from unnoise.diffusion.consistency import ConsistencyLoss
from unnoise.diffusion.denoiser import (
    Denoised,
    Denoiser,
    EDMPrediction,
    FlowPrediction,
    Prediction,
    VPrediction,
)
from unnoise.diffusion.levels import CLEAN, NoiseLevel, diffuse
from unnoise.diffusion.noise import Noise
from unnoise.diffusion.objectives import Noised
from unnoise.diffusion.oracle import GaussianOracle, exact_moments
from unnoise.diffusion.samplers import Consistency
from unnoise.diffusion.schedules import EDMSchedule, NoiseSchedule, RectifiedFlow
from unnoise.evaluation.selftest.check import Result, group, with_float64

ORACLE = GaussianOracle(mu=0.3, s=0.25)
PATHS: dict[str, NoiseSchedule] = {
    "cosine": schedules.cosine(),
    "EDM": EDMSchedule(),
    "flow": RectifiedFlow(),
}
NODES, MASSES = (-(3**0.5), 0.0, 3**0.5), (1 / 6, 2 / 3, 1 / 6)
"""Gauss–Hermite's, which give the mean of a quadratic function of a normal number exactly."""


def ends_of_paths(x: Tensor, level: NoiseLevel) -> Denoised:
    """The consistency function of the Gaussian: mu + (x − alpha·mu)·s/√v."""
    alpha, sigma = level.like(x)
    scale = ORACLE.s * (alpha**2 * ORACLE.s**2 + sigma**2).rsqrt()
    return Denoised(ORACLE.mu + scale * (x - alpha * ORACLE.mu), torch.zeros_like(x))


def boundary(prediction: Prediction, device: torch.device) -> Result:
    """max |f(x) − x| at the clean end, with a network that says anything."""
    x = Noise(0, torch.arange(8, device=device)).normal("x", (16,))
    level = NoiseLevel(*(value.to(x.device) for value in CLEAN))
    denoiser = Denoiser(_Function(lambda x: 1e3 * x.sin() + 7), prediction)
    return Result(float((denoiser(x, level).x0 - x).abs().max()), 0, 0)


def marginal(path: str, steps: int, device: torch.device) -> Result:
    """Variance of what the exact consistency function draws, over that of the data."""
    schedule = PATHS[path]
    levels = schedule.grid(steps, "training")
    start, there = ORACLE.marginal(levels[0]), with_float64(device)
    _, variance = exact_moments(
        Consistency(), schedule, levels, *start, oracle=ends_of_paths, device=there
    )
    return Result(variance / ORACLE.s**2, 1, 1e-12)


def minimiser(path: str, device: torch.device) -> Result:
    """The greatest slope of the loss at its minimiser, over linear functions of x at each level.

    x_t and x_r have the same noise, so that the best f(·, t) is E[f(x_r, r) | x_t]: of linear
    functions it is f(·, r) after a step of DDIM from t to r.
    """
    there, schedule = with_float64(device), PATHS[path]
    objective = ConsistencyLoss(every=1).at(4)
    t = schedule.level(schedule.sample_times(torch.linspace(0.2, 0.9, 5, device=there)))
    r, is_clean = objective.closer(schedule, t)
    nodes, mass = (torch.tensor(each, device=there).double() for each in (NODES, MASSES))
    steepest = 0.0
    for k in (~is_clean).nonzero().flatten().tolist():
        now, to = (NoiseLevel(*(value[k] for value in level)) for level in (t, r))
        x0, eps = ORACLE.mu + ORACLE.s * nodes.repeat_interleave(3)[:, None], nodes.repeat(3)
        x_t, x_r = (diffuse(x0, eps[:, None], level) for level in (now, to))
        target = ends_of_paths(x_r, to).x0
        ends = torch.tensor([[0.0], [1.0]], device=there).double()
        offset, point = ends_of_paths(_euler(ends, now, to), to).x0.flatten()
        line = torch.stack((offset, point - offset)).requires_grad_()
        found = Denoised(line[0] + line[1] * x_t, x_t)
        level = NoiseLevel(*(value.expand(9) for value in now))
        loss = objective.loss(found, Noised(target, eps, x_t, level, eps), schedule)
        mean = torch.outer(mass, mass).flatten() @ loss
        steepest = max(steepest, float(torch.autograd.grad(mean, line)[0].abs().max()))
    return Result(steepest, 0, 1e-12)


def _euler(x: Tensor, now: NoiseLevel, to: NoiseLevel) -> Tensor:
    denoised = ORACLE(x, now)
    return diffuse(denoised.x0, denoised.eps, to)


def converged(path: str, stage: int) -> float:
    """Variance of one step's pictures over that of the data, once a stage has converged.

    Level by level the minimiser is a step of DDIM, so that one call of the network is the whole
    walk from level t to r, from there to its own r, and so on to the clean end.
    """
    schedule, objective = PATHS[path], ConsistencyLoss(every=1, stages=stage)
    t = schedule.level(torch.tensor([schedule.ends[0]], dtype=torch.float64))
    slope, last, is_clean = 1.0, ORACLE.marginal(NoiseLevel(*(each[0] for each in t)))[1], False
    while not is_clean:
        r, clean = objective.closer(schedule, t)
        is_clean = bool(clean)
        to = CLEAN if is_clean else r
        v = t.alpha**2 * ORACLE.s**2 + t.sigma**2
        slope *= float((to.alpha * t.alpha * ORACLE.s**2 + to.sigma * t.sigma) / v)
        t = r
    return slope**2 * last / ORACLE.s**2


def limit(path: str, device: torch.device) -> Result:
    """What the variance of one step's pictures tends to, over that of the data.

    The error halves from stage to stage, as the gap between the levels does: 2·v_7 − v_6.
    """
    return Result(2 * converged(path, 7) - converged(path, 6), 1, 1e-3)


class _Function(nn.Module):
    def __init__(self, function: object) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor, t: Tensor, condition: object) -> Tensor:
        return self.function(x)  # type: ignore[operator,no-any-return]


ENDS = "Song et al. 2023, eq. 5; skip 1 and out 0 at the clean end"
EXACT = "x0 ~ N(0.3, 0.25²): (x − alpha·mu)/√v is constant along the ODE"
STEP = "E[f(x_r, r) | x_t] is f(·, r) after a step of DDIM from t to r"
PREDICTIONS = {"EDM": EDMPrediction(), "v": VPrediction(), "flow": FlowPrediction()}

CHECKS = group(
    "one step",
    *(
        (f"{name}: f(x) = x at the clean end, exactly", ENDS, partial(boundary, prediction))
        for name, prediction in PREDICTIONS.items()
    ),
    *(
        (
            f"{path}, exact f, steps {steps}: variance / data's",
            EXACT,
            partial(marginal, path, steps),
        )
        for path, steps in (("EDM", 1), ("flow", 2), ("cosine", 4))
    ),
    *(
        (f"{path}: slope of the loss at its minimiser", STEP, partial(minimiser, path))
        for path in PATHS
    ),
    *(
        (f"{path}, limit of the stages: variance / data's", EXACT, partial(limit, path))
        for path in ("EDM", "flow")
    ),
)
