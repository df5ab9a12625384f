"""Likelihood: with the best mean and variance the bound is the entropy of the data."""

import math
from itertools import pairwise

import torch

from unnoise.diffusion.levels import Gaussian, diffuse
from unnoise.diffusion.likelihood import pixel_log_likelihood, prior_term, step_term
from unnoise.diffusion.oracle import GaussianOracle, with_optimal_variance
from unnoise.diffusion.schedules import linear
from unnoise.evaluation.selftest.check import Check, Result, with_float64

ORACLE = GaussianOracle(mu=0.3, s=0.25)
STEPS = 200


def bound_is_entropy(device: torch.device) -> Result:
    """L_T + Σ L_{t−1} + H(x0 | x_1) in nats, against H(x0).

    The terms are quadratic in x0 and ε, so that Gauss–Hermite's three nodes each, 0 and ±√3 of
    weights 2/3 and 1/6, give their means exactly. The entropy of x0 given x_1 stands for L_0, which
    is that of pixels on 256 levels.
    """
    there = with_float64(device)
    nodes = torch.tensor([-(3**0.5), 0, 3**0.5], dtype=torch.float64, device=there)
    weight = torch.tensor([1 / 6, 2 / 3, 1 / 6], dtype=torch.float64, device=there)
    weights = torch.outer(weight, weight).flatten()
    x0 = ORACLE.mu + ORACLE.s * nodes.repeat_interleave(3)[:, None]
    eps = nodes.repeat(3)[:, None]
    levels = linear().grid(STEPS)
    best = with_optimal_variance(ORACLE, levels)
    bits = prior_term(x0, levels[0])
    for t, s in pairwise(levels[:-1]):
        x_t = diffuse(x0, eps, t)
        bits = bits + step_term(best(x_t, t), x0, x_t, t, s, "learned")
    last = 0.5 * math.log(2 * math.pi * math.e * float(ORACLE.posterior_variance(levels[-2])))
    return Result(float(weights @ bits) * math.log(2) + last, ORACLE.entropy, 1e-5)


def decoder_mass(device: torch.device) -> Result:
    """max |Σ p − 1| over 256 grey levels, for means in and out of [−1, 1]."""
    there = with_float64(device)
    x0 = (torch.arange(256, dtype=torch.float64, device=there) / 127.5 - 1)[:, None]
    means = torch.tensor([-7.0, -0.3, 0.001, 1.0], dtype=torch.float64, device=there)
    variances = torch.tensor([1e-6, 0.25, 1e-4, 1600.0], dtype=torch.float64, device=there)
    masses = pixel_log_likelihood(x0, Gaussian(means, variances)).exp().sum(0)
    return Result(float((masses - 1).abs().max()), 0, 1e-12)


GROUP = "likelihood"
CHECKS = [
    Check(
        GROUP,
        "bound with the optimal variance is H(x0), nats",
        "½·ln(2πe·s²) of x0 ~ N(0.3, 0.25²)",
        bound_is_entropy,
    ),
    Check(GROUP, "the decoder's 256 masses sum to 1", "Ho et al. 2020, eq. 13", decoder_mass),
]
