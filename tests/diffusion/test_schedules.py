"""Published values and the properties every schedule must have."""

from itertools import pairwise

import pytest
import torch

from unnoise.diffusion import schedules
from unnoise.diffusion.denoiser import EpsilonPrediction, FlowPrediction, VPrediction
from unnoise.diffusion.levels import CLEAN
from unnoise.diffusion.noise import Noise
from unnoise.diffusion.schedules import RectifiedFlow
from unnoise.diffusion.schedules.base import check_prediction

ALL = [
    schedules.linear,
    schedules.quadratic,
    schedules.constant,
    schedules.cosine,
    schedules.sigmoid,
]


@pytest.mark.parametrize(
    ("schedule", "alpha_bar_T"),
    [
        (schedules.linear(), 4.03583e-5),
        (schedules.quadratic(), 7.33412e-4),
        (schedules.quadratic(beta_1=0.00085, beta_T=0.012), 4.66010e-3),
        (schedules.cosine(), 2.42877e-9),
        (schedules.linear(T=200, beta_1=5e-4, beta_T=0.1), 3.03184e-5),
        (schedules.linear(T=512, beta_1=1e-4 * 1000 / 512, beta_T=20 / 512), 3.77845e-5),
        (schedules.linear(T=200), 0.13218),
        (schedules.constant(T=100, beta=0.05), 0.95**100),
    ],
)
def test_published_terminal_alpha_bar(schedule, alpha_bar_T):
    assert schedule.alphas_cumprod[-1].item() == pytest.approx(alpha_bar_T, rel=1e-4)


@pytest.mark.parametrize("make", ALL)
@pytest.mark.parametrize("T", [1, 2, 10, 1000, 4000])
def test_alpha_bar_is_the_product_and_falls_inside_0_1(make, T):
    schedule = make(T=T)
    alpha_bar = schedule.alphas_cumprod
    level = schedule.level(torch.arange(T))
    assert len(alpha_bar) == T
    torch.testing.assert_close(alpha_bar, (1 - schedule.betas).log().cumsum(0).exp())
    assert bool((alpha_bar[1:] < alpha_bar[:-1]).all())
    assert alpha_bar[-1] > 0
    assert alpha_bar[0] < 1
    torch.testing.assert_close(
        level.alpha**2 + level.sigma**2, torch.ones(T, dtype=torch.float64), rtol=0, atol=1e-12
    )


def test_sigmoid_with_its_limits_equals_the_published_curve():
    """γ(τ) of the paper, (S(end) − S(...))/(S(end) − S(start)), at a few τ by hand."""
    T = 1000
    schedule = schedules.sigmoid(T=T)

    def s(x):
        return 1 / (1 + torch.exp(-torch.tensor(x, dtype=torch.float64)))

    for t in (100, 500, 900):
        expected = (s(3.0) - s(-3 + 6 * t / T)) / (s(3.0) - s(-3.0))
        torch.testing.assert_close(schedule.alphas_cumprod[t - 1], expected, rtol=1e-9, atol=0)


def test_training_times_are_uniform():
    """χ² of 200k draws over 20 cells (19 degrees of freedom): p > 1e-4 means below 50.8."""
    u = Noise(0, torch.arange(200_000)).uniform("time")
    times = schedules.linear().sample_times(u)
    counts = torch.bincount(times // 50, minlength=20).double()
    assert ((counts - 10_000) ** 2 / 10_000).sum() < 50.8
    assert schedules.linear().sample_times(torch.tensor([0.0, 1 - 2**-24])).tolist() == [0, 999]


@pytest.mark.parametrize("spacing", ["uniform", "quadratic"])
@pytest.mark.parametrize("steps", [1, 2, 3, 10, 50, 250, 999, 1000])
def test_grid_goes_from_noise_to_clean_without_repeats(spacing, steps):
    levels = schedules.linear().grid(steps, spacing)
    times = [int(level.t) for level in levels]
    assert len(levels) == steps + 1
    assert times[0] == 999
    assert levels[-1] is CLEAN
    assert all(a > b for a, b in pairwise(times))
    assert steps == 1 or times[-2] == 0


def test_quadratic_grid_is_even_in_the_square_root_of_t():
    times = torch.stack([level.t for level in schedules.linear().grid(20, "quadratic")[:-1]])
    gaps = -times.sqrt().diff()
    assert (gaps.max() - gaps.min()) < 0.6  # rounding to whole t moves √t by at most 0.5 near 0
    assert abs(times[10] - (999**0.5 * 9 / 19) ** 2) <= 0.5


@pytest.mark.parametrize("make", [*ALL, lambda: schedules.zero_terminal_snr(schedules.linear())])
def test_real_times_pass_through_the_table(make):
    schedule, t = make(), torch.arange(1000)
    at_index, at_real = schedule.level(t), schedule.level(t.double())
    torch.testing.assert_close(at_real.alpha, at_index.alpha, rtol=0, atol=1e-12)
    torch.testing.assert_close(at_real.sigma, at_index.sigma, rtol=0, atol=1e-12)


@pytest.mark.parametrize("make", [*ALL, lambda: schedules.zero_terminal_snr(schedules.linear())])
def test_time_at_is_the_inverse_of_level(make):
    schedule = make()
    t = torch.linspace(0, 998.99, 4321, dtype=torch.float64)
    torch.testing.assert_close(schedule.time_at(schedule.level(t).log_snr), t, rtol=0, atol=1e-9)


@pytest.mark.parametrize("make", [schedules.linear, schedules.quadratic, schedules.cosine])
def test_zero_terminal_snr_keeps_the_first_level_and_ends_in_pure_noise(make):
    """√ᾱ becomes an affine function of what it was: through √ᾱ_1, and 0 at T."""
    before, after = make(), schedules.zero_terminal_snr(make())
    old, new = before.alphas_cumprod.sqrt(), after.alphas_cumprod.sqrt()
    assert new[-1] == 0
    torch.testing.assert_close(new[0], old[0], rtol=1e-12, atol=0)
    slope = (new[0] - new[-1]) / (old[0] - old[-1])
    torch.testing.assert_close(new, slope * (old - old[-1]), rtol=0, atol=1e-12)
    assert after.level(torch.tensor(999)).alpha == 0


def test_too_many_steps_say_what_is_right():
    with pytest.raises(ValueError, match=r"1001 steps .* T=1000: use 1 … 1000"):
        schedules.linear().grid(1001)


def test_betas_outside_0_1_are_refused():
    with pytest.raises(ValueError, match="every beta must lie in"):
        schedules.DiscreteSchedule(torch.tensor([1.0, 0.1], dtype=torch.float64))


def test_zero_terminal_snr_of_one_level_is_refused():
    with pytest.raises(ValueError, match="T of at least 2"):
        schedules.zero_terminal_snr(schedules.linear(T=1))


def test_epsilon_is_refused_where_nothing_is_left_of_the_picture():
    for schedule in (schedules.zero_terminal_snr(schedules.linear()), RectifiedFlow()):
        with pytest.raises(ValueError, match=r"EpsilonPrediction cannot be used .*alpha = 0"):
            check_prediction(EpsilonPrediction(), schedule)
        check_prediction(VPrediction(), schedule)
        check_prediction(FlowPrediction(), schedule)
    check_prediction(EpsilonPrediction(), schedules.linear())


@pytest.mark.parametrize(("mean", "std"), [(0.0, 2.0), (1.5, 1.0)])
def test_log_normal_snr_draws_log_snr_from_its_normal_distribution(mean, std):
    schedule = schedules.LogNormalSNR(schedules.cosine(T=4000), mean, std)
    u = (torch.arange(20_000) + 0.5) / 20_000
    log_snr = schedule.level(schedule.sample_times(u)).log_snr.double()
    expected = torch.distributions.Normal(mean, std).icdf(1 - u.double())
    middle = (u > 0.02) & (u < 0.98)
    torch.testing.assert_close(log_snr[middle], expected[middle], rtol=0, atol=0.01)


def test_log_normal_snr_has_the_levels_of_its_schedule_and_stays_on_them():
    before = schedules.linear()
    schedule = schedules.LogNormalSNR(before, std=20.0)
    assert torch.equal(schedule.alphas_cumprod, before.alphas_cumprod)
    times = schedule.sample_times(torch.tensor([0.0, 0.3, 0.5, 0.7, 1 - 2**-24]))
    assert times.dtype == torch.int64
    assert times[0] == 0
    assert times[-1] == schedule.T - 1


@pytest.mark.parametrize("mean", [-30.0, 30.0, 1e9])
def test_log_normal_snr_beyond_the_ends_is_refused(mean):
    with pytest.raises(ValueError, match="must lie between the ends of the schedule"):
        schedules.LogNormalSNR(schedules.cosine(), mean)
