"""EDM, NCSN and flow levels: formulas, inverses and grids; the grids of all schedules."""

import math
from itertools import pairwise

import pytest
import torch

from unnoise.diffusion import schedules
from unnoise.diffusion.levels import CLEAN
from unnoise.diffusion.noise import Noise
from unnoise.diffusion.schedules import (
    EDMSchedule,
    GeometricSchedule,
    LogitNormalFlow,
    RectifiedFlow,
)

CONTINUOUS = [
    EDMSchedule(),
    GeometricSchedule(),
    RectifiedFlow(),
    LogitNormalFlow(),
]
ALL = [
    *CONTINUOUS,
    schedules.linear(),
    schedules.cosine(),
    schedules.sigmoid(),
    schedules.zero_terminal_snr(schedules.linear()),
    schedules.LogNormalSNR(schedules.cosine()),
]
U = Noise(0, torch.arange(100_000)).uniform("time")


def name(schedule):
    return type(schedule).__name__


@pytest.mark.parametrize("schedule", CONTINUOUS, ids=name)
def test_time_at_is_the_inverse_of_level(schedule):
    t = torch.linspace(*schedule.ends, 1001, dtype=torch.float64)
    torch.testing.assert_close(schedule.time_at(schedule.level(t).log_snr), t, rtol=0, atol=1e-9)


@pytest.mark.parametrize("schedule", ALL, ids=name)
@pytest.mark.parametrize("spacing", ["uniform", "quadratic", "log_snr", "karras"])
@pytest.mark.parametrize("steps", [1, 2, 18, 250, 1000])
def test_noise_falls_strictly_from_the_noisy_end_to_clean(schedule, spacing, steps):
    levels = schedule.grid(steps, spacing)
    assert len(levels) == steps + 1
    assert levels[-1] is CLEAN
    noise_to_signal = [float(level.sigma / level.alpha) for level in levels]
    assert all(a > b for a, b in pairwise(noise_to_signal))
    assert all(math.isfinite(ratio) for ratio in noise_to_signal[1:])
    assert noise_to_signal[0] > 4
    if spacing in ("log_snr", "karras"):
        assert math.isfinite(noise_to_signal[0])


@pytest.mark.parametrize("schedule", CONTINUOUS, ids=name)
def test_training_levels_are_finite_and_noise_rises_with_u(schedule):
    u = torch.tensor([0, 2**-24, 0.1, 0.5, 0.9, 1 - 2**-24])
    level = schedule.level(schedule.sample_times(u))
    assert bool((level.sigma > 0).all())
    assert bool((level.sigma.diff() > 0).all())
    assert bool((level.alpha > 0).all())
    assert all(bool(part.isfinite().all()) for part in level)


def test_edm_levels_are_the_papers():
    """Eq. 5 with ρ = 7, alpha = 1; the network is told 1000·c_noise = 250·ln sigma."""
    levels = EDMSchedule().grid(18, "karras")[:-1]
    for i, level in enumerate(levels):
        root = 80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))
        assert float(level.sigma) == pytest.approx(root**7, rel=1e-9)
        assert float(level.alpha) == 1
        assert float(level.t) == pytest.approx(250 * math.log(root**7), rel=1e-6)


def test_edm_trains_on_log_normal_sigma():
    """Mean and variance of ln sigma within 4 standard errors of −1.2 and 1.2²."""
    schedule = EDMSchedule()
    log_sigma = schedule.level(schedule.sample_times(U)).sigma.log()
    n = len(U)
    assert abs(log_sigma.mean() + 1.2) < 4 * 1.2 / math.sqrt(n)
    assert abs(log_sigma.var() / 1.2**2 - 1) < 4 * math.sqrt(2 / n)


def test_logit_normal_times_have_the_moments_asked_for():
    times = LogitNormalFlow(mean=0.5, std=0.8).sample_times(U)
    logit, n = times.logit(), len(U)
    assert abs(logit.mean() - 0.5) < 4 * 0.8 / math.sqrt(n)
    assert abs(logit.var() / 0.8**2 - 1) < 4 * math.sqrt(2 / n)


def test_flow_walks_the_straight_path_in_equal_steps():
    levels = RectifiedFlow().grid(4)
    assert [float(level.sigma) for level in levels] == [1, 0.75, 0.5, 0.25, 0]
    assert [float(level.alpha) for level in levels] == [0, 0.25, 0.5, 0.75, 1]
    assert [float(level.t) for level in levels[:-1]] == [1000, 750, 500, 250]


@pytest.mark.parametrize("spacing", ["log_snr", "karras", "quadratic"])
def test_the_cleanest_level_of_a_flow_has_nothing_to_do_with_its_number_of_levels(spacing):
    for T in (10, 1000):
        assert float(RectifiedFlow(T).grid(7, spacing)[-2].sigma) == pytest.approx(1e-3)


def test_ncsn_levels_are_a_geometric_sequence():
    sigmas = [float(level.sigma) for level in GeometricSchedule(0.01, 1.0, T=10).grid()[:-1]]
    assert sigmas == pytest.approx([0.01 ** (i / 9) for i in range(10)], rel=1e-9)


def test_ends_the_wrong_way_round_are_refused():
    with pytest.raises(ValueError, match=r"sigma_min 3.0 must be below sigma_max 2.0"):
        GeometricSchedule(sigma_min=3.0, sigma_max=2.0)
