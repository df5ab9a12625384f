"""Samplers with the optimal denoiser, for which every marginal is known."""

import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from unnoise.diffusion.noise import Noise
from unnoise.diffusion.oracle import GaussianOracle, exact_moments, with_optimal_variance
from unnoise.diffusion.samplers import (
    DDIM,
    AdaptiveODE,
    Ancestral,
    DPMSolver,
    Euler,
    Heun,
    Sampler,
    Stepper,
    UniPC,
    Walk,
    sample,
)
from unnoise.diffusion.schedules import linear
from unnoise.evaluation.selftest.check import Check, Result, with_float64

ORACLE = GaussianOracle(mu=0.3, s=0.25)
STARTS = (-1.0, 0.2, 1.3)


def order(steps: Sequence[int], errors: Sequence[float]) -> float:
    """The slope of −ln error over ln steps."""
    x, y = (torch.tensor(values, dtype=torch.float64).log() for values in (steps, errors))
    x, y = x - x.mean(), y - y.mean()
    return -float((x * y).sum() / (x * x).sum())


def convergence(stepper: Stepper, device: torch.device) -> Result:
    """The order by 80, 160 and 320 steps on a log-SNR-uniform grid, against the declared one."""
    schedule, steps, errors = linear(), (80, 160, 320), []
    x = torch.tensor(STARTS, dtype=torch.float64, device=with_float64(device))[:, None]
    for n in steps:
        levels = schedule.grid(n + 1, "log_snr")[:-1]
        found = sample(Walk(ORACLE, schedule, torch.empty), stepper, levels, x)
        exact = ORACLE.along_the_ode(x, levels[0], levels[-1])
        errors.append(float((found - exact).abs().max()))
    return Result(order(steps, errors), stepper.order, 0.15)


def adaptive(device: torch.device) -> Result:
    """Max error at the end of the path, where a tolerance of 1e-5 holds at every step of it."""
    schedule, tolerance = linear(), 1e-5
    levels = schedule.grid(2, "log_snr")[:-1]
    x = torch.tensor(STARTS, dtype=torch.float64, device=with_float64(device))[:, None]
    stepper = AdaptiveODE(tolerance, tolerance)
    found = sample(Walk(ORACLE, schedule, torch.empty), stepper, levels, x)
    off = (found - ORACLE.along_the_ode(x, *levels)).abs().max()
    return Result(float(off), 0, 30 * tolerance)


def variance_ratio(stepper: Stepper, steps: int, published: float, device: torch.device) -> Result:
    """Variance of the pictures over that of the data, on a uniform grid of the linear schedule."""
    schedule = linear()
    levels = schedule.grid(steps)
    there = with_float64(device)
    _, variance = exact_moments(stepper, schedule, levels, oracle=ORACLE, device=there)
    return Result(variance / ORACLE.s**2, published, 1e-3)


def moment_recursion(device: torch.device) -> Result:
    """Variance of the pictures of DDIM in 50 steps over that of the data, against Π r²/s².

    r = (√(ᾱ_s·ᾱ_t)·s² + √((1 − ᾱ_s)(1 − ᾱ_t)))/v_t from t to s, ᾱ = 1 at the end; a grid that ended
    at ᾱ_1 would be 0.3 % off.
    """
    schedule, slope = linear(), 1.0
    times = torch.linspace(schedule.T - 1, 0, 50, dtype=torch.float64).round().long()
    for now, to in pairwise([*schedule.alphas_cumprod[times].tolist(), 1.0]):
        v = now * ORACLE.s**2 + 1 - now
        slope *= (math.sqrt(to * now) * ORACLE.s**2 + math.sqrt((1 - to) * (1 - now))) / v
    found = variance_ratio(DDIM(), 50, 0.811, device).got
    return Result(found, slope**2 / ORACLE.s**2, 1e-11)


def optimal_variance(device: torch.device) -> Result:
    """Variance of x at the cleanest level after 10 steps from the noisiest, over the exact one."""
    schedule = linear()
    levels = schedule.grid(10)
    start, (_, exact) = ORACLE.marginal(levels[0]), ORACLE.marginal(levels[-2])
    best = with_optimal_variance(ORACLE, levels)
    there = with_float64(device)
    _, found = exact_moments(
        Ancestral("learned"), schedule, levels[:-1], *start, oracle=best, device=there
    )
    return Result(found / exact, 1, 1e-5)


def eta_one(device: torch.device) -> Result:
    """Max difference in 20 steps between DDIM with η = 1 and ancestral sampling with β̃."""
    schedule = linear()
    levels = schedule.grid(20, "quadratic")
    noise = Noise(0, torch.arange(4, device=with_float64(device)))
    x_T = noise.normal("x_T", (16,)).double()

    def draw(stepper: Stepper) -> Tensor:
        fresh = noise.normals("sampler", (16,))
        return sample(Walk(ORACLE, schedule, lambda: fresh().double()), stepper, levels, x_T)

    off = (draw(DDIM(1.0)) - draw(Ancestral("posterior"))).abs().max()
    return Result(float(off), 0, 1e-10)


def pictures(stepper: Stepper, device: torch.device) -> Result:
    """How many standard errors √(2/n) the variance of 20,000 pixels is off the exact one."""
    n, pixels, schedule = 5000, 4, linear()
    _, exact = exact_moments(stepper, schedule, schedule.grid(50), oracle=ORACLE)
    noise = Noise(0, torch.arange(n, device=device))
    x = Sampler(stepper, steps=50)(ORACLE, schedule, (pixels,), noise)
    return Result((float(x.cpu().double().var()) / exact - 1) / math.sqrt(2 / (n * pixels)), 0, 4)


GROUP = "samplers"
GAUSSIAN = "x0 ~ N(0.3, 0.25²) with its ε* in closed form, exact moments of affine steps"
ORDER = "declared order; the oracle's probability-flow ODE is solved in closed form"
RATIOS = [
    ("DDIM", DDIM(), ((50, 0.811), (250, 0.958), (1000, 0.988))),
    ("ancestral β̃", Ancestral("posterior"), ((50, 0.673), (250, 0.901), (1000, 0.970))),
]
DETERMINISTIC = [
    ("DDIM", DDIM()),
    ("Euler", Euler()),
    ("Heun", Heun()),
    ("DPM-Solver++ 2M", DPMSolver()),
    ("UniPC", UniPC()),
]
CHECKS = [
    *(
        Check(
            GROUP,
            f"{name}, {steps} steps: variance / data's",
            GAUSSIAN,
            partial(variance_ratio, stepper, steps, ratio),
        )
        for name, stepper, ratios in RATIOS
        for steps, ratio in ratios
    ),
    Check(GROUP, "DDIM, 50 steps: the moment recursion", GAUSSIAN, moment_recursion),
    Check(GROUP, "optimal variance: exact marginal", "Bao et al. 2022", optimal_variance),
    Check(GROUP, "DDIM with η = 1 is ancestral β̃", "Song et al. 2021, eq. 16", eta_one),
    *(
        Check(GROUP, f"{name}: order of convergence", ORDER, partial(convergence, stepper))
        for name, stepper in DETERMINISTIC
    ),
    Check(GROUP, "adaptive ODE: error at tolerance 1e-5", ORDER, adaptive),
    *(
        Check(
            GROUP,
            f"{name}, 20,000 float32 pixels: variance, z",
            GAUSSIAN,
            partial(pictures, stepper),
        )
        for name, stepper in (("DDIM", DDIM()), ("ancestral β", Ancestral("beta")))
    ),
]
