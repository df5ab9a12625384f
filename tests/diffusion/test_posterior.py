"""Posterior sampling of Gaussian data, whose posterior is known."""

import pytest
import torch

from unnoise.diffusion import schedules
from unnoise.diffusion.noise import Noise
from unnoise.diffusion.oracle import GaussianOracle
from unnoise.diffusion.posterior import Masked, Posterior, averages, blur
from unnoise.diffusion.samplers import (
    DDIM,
    AdaptiveODE,
    Consistency,
    DPMSolver,
    Heun,
    Sampler,
    Walk,
    sample,
)
from unnoise.diffusion.schedules import EDMSchedule, RectifiedFlow

SHAPE, PIXELS, NOISE = (1, 4, 6), 24, 0.1
ORACLE = GaussianOracle(mu=0.3, s=0.25)
KNOWN = torch.arange(PIXELS).reshape(1, 1, 4, 6) % 3 > 0
MEASUREMENTS = {
    "mask": Masked(KNOWN),
    "blur": blur(4, 6, 0.8),
    "factor": averages(4, 6, 2),
}
SCHEDULES = {"linear": schedules.linear(), "edm": EDMSchedule(), "flow": RectifiedFlow()}
of_each = pytest.mark.parametrize("measurement", MEASUREMENTS.values(), ids=MEASUREMENTS)
on_each = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
PICTURE = Noise(3, torch.arange(1)).normal("picture", SHAPE).double() * 0.25 + 0.3


def matrix(function, shape=SHAPE):
    """Of a linear map of pictures, float64."""
    units = torch.eye(torch.Size(shape).numel(), dtype=torch.float64).reshape(-1, *shape)
    return function(units).flatten(1).T


def exact(measurement, y, mean, variance):
    """Mean (n,) and covariance of p(x0 | y) for x0 ~ N(mean, variance·I)."""
    A = matrix(measurement)
    gain = (
        variance
        * A.T
        @ torch.linalg.inv(variance * A @ A.T + NOISE**2 * torch.eye(len(A)).double())
    )
    off = y.flatten() - A @ mean
    return mean + gain @ off, variance * (torch.eye(A.shape[1]).double() - gain @ A)


@of_each
def test_back_is_the_transpose_and_solved_the_inverse(measurement):
    A = matrix(measurement)
    small = tuple(measurement(torch.zeros(1, *SHAPE)).shape[1:])
    torch.testing.assert_close(matrix(measurement.back, small), A.T)
    signal = torch.full((len(A),), 0.7, dtype=torch.float64)
    inverse = matrix(lambda y: measurement.solved(y, signal[: len(y)], 0.04), small)
    expected = torch.linalg.inv(0.7 * A @ A.T + 0.04 * torch.eye(len(A)).double())
    torch.testing.assert_close(inverse, expected, rtol=1e-9, atol=1e-9)


def test_what_each_measures():
    x = torch.arange(24.0).reshape(1, 1, 4, 6)
    pooled = torch.nn.functional.avg_pool2d(x, 2)
    torch.testing.assert_close(MEASUREMENTS["factor"](x), pooled)
    torch.testing.assert_close(blur(4, 6, 2.0)(torch.ones_like(x)), torch.ones_like(x))
    point = torch.zeros(1, 1, 9, 9).index_put((*torch.tensor([0, 0, 4, 4]),), torch.tensor(1.0))
    spread = blur(9, 9, 0.7)(point)[0, 0, 4]
    torch.testing.assert_close(spread[5] / spread[4], torch.tensor(-1 / 2 / 0.7**2).exp())
    assert torch.equal(MEASUREMENTS["mask"](x)[~KNOWN], torch.zeros(8))
    with pytest.raises(ValueError, match="factor 4 does not divide pictures of 4 × 6 pixels"):
        averages(4, 6, 4)


@of_each
@on_each
def test_the_denoiser_is_that_of_the_posterior(measurement, schedule):
    """With E[x0 | x_t] and Var(x0 | x_t) exact, E[x0 | x_t, y] is too, at every level."""
    y = measurement(PICTURE) + 0.05
    edit = Posterior(y, measurement, NOISE, spread=ORACLE.s)
    denoise = edit.guided(ORACLE, y)
    x_t = Noise(4, torch.arange(1)).normal("x", SHAPE).double()
    for level in schedule.grid(7, "log_snr")[1:-1]:
        found, before = denoise(x_t, level), ORACLE(x_t, level)
        variance = float(ORACLE.posterior_variance(level))
        mean, _ = exact(measurement, y, before.x0.flatten(), variance)
        torch.testing.assert_close(found.x0.flatten(), mean, rtol=0, atol=1e-10)
        alpha, sigma = level.like(x_t)
        torch.testing.assert_close(alpha * found.x0 + sigma * found.eps, x_t, rtol=0, atol=1e-8)


@of_each
@on_each
def test_samples_are_of_the_posterior(measurement, schedule):
    """Mean and covariance, exactly: every step is affine in the noise that it starts from."""
    y = measurement(PICTURE) + 0.05
    denoise = Posterior(y, measurement, NOISE, spread=ORACLE.s).guided(ORACLE, y)
    levels = schedule.grid(150, "log_snr")
    start = torch.cat((torch.zeros(1, PIXELS), torch.eye(PIXELS))).double().reshape(-1, *SHAPE)
    start = start * (levels[0].alpha ** 2 + levels[0].sigma ** 2).sqrt()
    x = sample(Walk(denoise, schedule, torch.empty), Heun(), levels, start).flatten(1)
    slope = (x[1:] - x[0]).T
    mean, covariance = exact(measurement, y, torch.full((PIXELS,), ORACLE.mu).double(), ORACLE.s**2)
    torch.testing.assert_close(x[0], mean, rtol=0, atol=2e-3)
    torch.testing.assert_close(slope @ slope.T, covariance, rtol=0, atol=1e-3)


@of_each
def test_a_sampler_draws_it_and_each_picture_has_its_own_measurement(measurement):
    y = torch.cat((measurement(PICTURE), measurement(-PICTURE))).float()
    edit = Posterior(y, measurement, 0.02, spread=ORACLE.s)
    assert edit.shape == SHAPE
    sampler, ids = Sampler(DPMSolver(), 30, "log_snr"), torch.arange(6)
    x = edit(sampler, ORACLE, SCHEDULES["linear"], Noise(0, ids))
    off = measurement(x) - y[ids % 2]
    assert off.square().mean().sqrt() < 0.04
    few = edit(sampler, ORACLE, SCHEDULES["linear"], Noise(0, ids[3:]))
    torch.testing.assert_close(few, x[3:], rtol=0, atol=1e-5)


def test_a_spread_of_0_is_diffusion_posterior_sampling():
    """Its gradient is that of −‖y − A·x̂0‖²/(2·noise²)."""
    measurement, level = MEASUREMENTS["blur"], schedules.linear().level(torch.tensor(400))
    y, x = measurement(PICTURE) + 0.05, torch.zeros(1, *SHAPE).double().requires_grad_()
    off = (y - measurement(ORACLE(x, level).x0)).square().sum() / (2 * NOISE**2)
    (slope,) = torch.autograd.grad(-off, x)
    found = Posterior(y, measurement, NOISE, spread=0.0).guided(ORACLE, y)(x.detach(), level)
    expected = ORACLE(x, level).eps - level.sigma * slope
    torch.testing.assert_close(found.eps, expected.detach(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("stepper", "message"),
    [(Consistency(), "a consistency model does not estimate"), (AdaptiveODE(), "its own levels")],
)
def test_samplers_that_do_not_fit_are_refused(stepper, message):
    edit = Posterior(PICTURE.float(), MEASUREMENTS["blur"], NOISE)
    with pytest.raises(ValueError, match=message):
        edit(Sampler(stepper, 4), ORACLE, schedules.linear(), Noise(0, torch.arange(2)))


def test_pure_noise_is_left_to_the_model():
    schedule = schedules.zero_terminal_snr(schedules.linear())
    level, x = schedule.grid(1)[0], torch.randn(1, *SHAPE)
    found = Posterior(PICTURE.float(), MEASUREMENTS["blur"], NOISE).guided(ORACLE, PICTURE)
    assert torch.equal(found(x, level).x0, ORACLE(x, level).x0)
    drawn = Posterior(PICTURE.float(), MEASUREMENTS["blur"], NOISE)(
        Sampler(DDIM(), 5), ORACLE, schedule, Noise(0, torch.arange(2))
    )
    assert drawn.isfinite().all()
