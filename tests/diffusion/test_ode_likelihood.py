"""The density by the probability-flow ODE against Gaussian data, for which it is known."""

import math

import pytest
import torch
from gaussian import SCHEDULES, exact_divergence

from unnoise.diffusion import schedules
from unnoise.diffusion.likelihood import hutchinson, ode_bits_per_dim, ode_log_density
from unnoise.diffusion.noise import Noise
from unnoise.diffusion.oracle import GaussianOracle

ORACLE = GaussianOracle()
LINEAR = schedules.linear()
ENTROPY = 0.5 * math.log2(2 * math.pi * math.e * ORACLE.s**2)  # bits/dim
X = torch.tensor([[-1.0, 0.2], [0.4, 1.1], [0.0, 0.0]], dtype=torch.float64)


def name(schedule):
    return type(schedule).__name__


def square_ends(schedule):
    """σ̂² at the noisy and at the clean end."""
    ends = schedule.level(torch.tensor(schedule.ends, dtype=torch.float64))
    return (-ends.log_snr.clamp(min=-14.0)).exp()


@pytest.mark.parametrize("schedule", [*SCHEDULES, schedules.sigmoid()], ids=name)
def test_ode_density_is_the_exact_marginal(schedule):
    """Of x0 + σ̂_min·eps, for N(0, 1) data, which is at σ̂_T exactly where sampling starts."""
    found = ode_log_density(GaussianOracle(0.0, 1.0), schedule, X, exact_divergence)
    std = (1 + square_ends(schedule)[1]).sqrt()
    expected = torch.distributions.Normal(0, std).log_prob(X).sum(1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
def test_ode_density_is_carried_by_the_exact_solution(schedule):
    """y − mu grows as √(s² + σ̂²), and the density with it."""
    noisy, clean = ORACLE.s**2 + square_ends(schedule)
    y_T = ORACLE.mu + (X - ORACLE.mu) * (noisy / clean).sqrt()
    start = torch.distributions.Normal(0, (1 + square_ends(schedule)[0]).sqrt())
    expected = (start.log_prob(y_T) + 0.5 * (noisy / clean).log()).sum(1)
    found = ode_log_density(ORACLE, schedule, X, exact_divergence, tolerance=1e-7)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_hutchinson_is_exact_for_a_diagonal_jacobian_and_unbiased_for_any():
    matrix = torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = torch.zeros(20_000, 4, dtype=torch.float64, requires_grad=True)
    signs = torch.where(Noise(0, torch.arange(20_000)).normal("v", (4,)) < 0, -1.0, 1.0).double()
    diagonal = matrix.diag()
    torch.testing.assert_close(
        hutchinson(signs)(x * diagonal, x), diagonal.sum().expand(20_000), rtol=1e-12, atol=1e-12
    )
    found = hutchinson(signs)(x @ matrix.T, x)
    assert abs(found.mean() - matrix.trace()) < 4 * found.std() / math.sqrt(20_000)
    torch.testing.assert_close(
        exact_divergence(x[:2] @ matrix.T, x)[:2], matrix.trace().expand(2), rtol=1e-12, atol=1e-12
    )


def test_ode_bits_per_dim_works_in_inference_mode_and_is_near_the_entropy():
    """Of pixels N(mu, s²) on levels 2/255 wide: entropy − log2(2/255), within 4 standard errors."""
    network = torch.nn.Linear(1, 1, bias=False)  # a weight, as real denoisers have
    torch.nn.init.ones_(network.weight)

    def denoise(x, level):
        return ORACLE(network(x.float().unsqueeze(-1)).squeeze(-1), level)

    schedule = schedules.linear()
    with torch.inference_mode():
        schedule.grid(5)
        data = ORACLE.mu + ORACLE.s * Noise(7, torch.arange(64)).normal("data", (16,))
        x0 = ((data + 1) * 127.5).round() / 127.5 - 1
        found = ode_bits_per_dim(denoise, schedule, x0, Noise(0, torch.arange(64)), 1e-3)
    expected = ENTROPY - math.log2(2 / 255)
    assert abs(found.mean() - expected) < 4 * found.std() / 8 + 0.005
    assert network.weight.grad is None


def test_ode_bits_are_of_pixels_spread_over_the_whole_of_their_levels(monkeypatch):
    """−log2 of density·2/255 at x0 + U(−1/255, 1/255)."""
    spread, nats = [], torch.linspace(-40, 900, 64)
    monkeypatch.setattr(
        "unnoise.diffusion.likelihood.ode_log_density",
        lambda denoise, schedule, x, *_: spread.append(x) or nats,
    )
    x0 = (torch.arange(64.0)[:, None] / 127.5 - 1).expand(64, 500).double()
    found = ode_bits_per_dim(ORACLE, LINEAR, x0, Noise(0, torch.arange(64)))
    torch.testing.assert_close(found, -nats / 500 / math.log(2) - math.log2(2 / 255))
    u, n = (spread[0] - x0) * 255, x0.numel()
    assert 0.999 < u.max() <= 1
    assert -1 <= u.min() < -0.999
    assert abs(u.mean()) < 4 * math.sqrt(1 / 3 / n)
    assert abs(u.square().mean() - 1 / 3) < 4 * math.sqrt(4 / 45 / n)
