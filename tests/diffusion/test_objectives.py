"""L_simple against its known least value and its value for a network that says nothing."""

import math

import pytest
import torch

from unnoise.diffusion import schedules
from unnoise.diffusion.denoiser import (
    Denoiser,
    EDMPrediction,
    EpsilonPrediction,
    FlowPrediction,
    VPrediction,
    X0Prediction,
)
from unnoise.diffusion.levels import diffuse
from unnoise.diffusion.noise import Noise
from unnoise.diffusion.objectives import Loss, SimpleLoss, WeightedLoss
from unnoise.diffusion.oracle import GaussianOracle
from unnoise.diffusion.schedules import EDMSchedule, LogitNormalFlow, RectifiedFlow
from unnoise.diffusion.times import UniformTimes
from unnoise.diffusion.weights import P2, EDMWeight, MinSNR, VelocityWeight, VWeight, X0Weight

SCHEDULE = schedules.linear()


class Zero(torch.nn.Module):
    def forward(self, x, t, condition):
        return torch.zeros_like(x)


class Oracle(torch.nn.Module):
    """ε* of the Gaussian oracle, as a network."""

    def forward(self, x, t, condition):
        return GaussianOracle()(x, SCHEDULE.level(t.long())).eps


def loss(network, n, pixels=64, seed=0):
    noise = Noise(seed, torch.arange(n))
    x0 = 0.3 + 0.25 * Noise(99, torch.arange(n)).normal("data", (pixels,))
    denoiser = Denoiser(network, EpsilonPrediction())
    u, weight = UniformTimes().draw(noise)
    return Loss(SimpleLoss()(denoiser, SCHEDULE, x0, u, None, noise), u, weight)


def test_a_network_that_says_nothing_has_loss_one():
    n = 4000 * 64
    assert abs(loss(Zero(), 4000).per_sample.mean() - 1) < 4 * math.sqrt(2 / n)


def test_the_best_network_reaches_the_known_least_loss():
    """Least E‖ε − ε*‖² at t is a²s²/v; a mean below it by 4 standard errors would be leakage."""
    result = loss(Oracle(), 4000)
    level = SCHEDULE.level(SCHEDULE.sample_times(result.u))
    signal = level.alpha**2 * GaussianOracle().s ** 2
    least = signal / (signal + level.sigma**2)
    z = (result.per_sample / least - 1) / math.sqrt(2 / 64)
    assert abs(z.mean()) < 4 / math.sqrt(len(z))
    assert abs(z.var() - 1) < 0.15


def test_a_samples_loss_depends_on_its_own_id_only():
    together, few = loss(Oracle(), 32).per_sample, loss(Oracle(), 8).per_sample
    torch.testing.assert_close(together[:8], few, rtol=0, atol=1e-6)


def test_noise_and_times_differ_between_samples_and_seeds():
    a, b = loss(Zero(), 64).u, loss(Zero(), 64, seed=1).u
    assert len(a.unique()) == 64
    assert not torch.equal(a, b)


PICTURES = 0.3 + 0.25 * Noise(99, torch.arange(64)).normal("data", (3, 4, 4))
NOISE = Noise(1, torch.arange(64))
U = torch.linspace(0, 1 - 2**-24, 64)
ZERO_SNR = schedules.zero_terminal_snr(schedules.linear())


def weighted(weight, prediction, schedule, x0=PICTURES):
    denoiser = Denoiser(Zero(), prediction)
    return WeightedLoss(weight)(denoiser, schedule, x0, U, None, NOISE)


@pytest.mark.parametrize("weight", [MinSNR(), P2(), EDMWeight(), VelocityWeight(), VWeight()])
@pytest.mark.parametrize(
    ("schedule", "prediction"),
    [
        (schedules.linear(), EpsilonPrediction()),
        (schedules.cosine(), EpsilonPrediction()),
        (ZERO_SNR, VPrediction()),
        (ZERO_SNR, X0Prediction()),
        (RectifiedFlow(), FlowPrediction()),
        (LogitNormalFlow(), FlowPrediction()),
        (EDMSchedule(), EDMPrediction()),
    ],
)
def test_weighted_loss_in_float32_is_the_one_in_float64(weight, schedule, prediction):
    """At every level of training, the ends included, and finite."""
    single = weighted(weight, prediction, schedule)
    level = schedule.level(schedule.sample_times(U))
    x0, eps = PICTURES.double(), NOISE.normal("eps", (3, 4, 4)).double()
    x_t = diffuse(x0, eps, level)
    denoised = Denoiser(Zero(), prediction)(x_t, level)
    noisy = level.alpha < level.sigma  # there x0 holds the error to full precision, else eps
    snr = (level.alpha / level.sigma) ** 2
    of_x0 = (x0 - denoised.x0).square().flatten(1).mean(1) * weight(snr)
    of_eps = (eps - denoised.eps).square().flatten(1).mean(1) * weight(snr) / snr
    expected = torch.where(noisy, of_x0, of_eps).float()
    torch.testing.assert_close(single, expected, rtol=1e-3, atol=1e-7)


def test_p2_without_gamma_is_l_simple():
    denoiser = Denoiser(Zero(), EpsilonPrediction())
    simple = SimpleLoss()(denoiser, SCHEDULE, PICTURES, U, None, NOISE)
    found = weighted(P2(gamma=0.0), EpsilonPrediction(), SCHEDULE)
    torch.testing.assert_close(found, simple, rtol=1e-4, atol=0)


def test_velocity_loss_is_flow_matchings():
    """‖eps − x0 − F‖² of a network that says 0, at all times."""
    target = NOISE.normal("eps", (3, 4, 4)) - PICTURES
    found = weighted(VelocityWeight(), FlowPrediction(), RectifiedFlow())
    torch.testing.assert_close(found, target.square().flatten(1).mean(1), rtol=1e-4, atol=0)


def test_x0_weight_is_the_error_of_the_picture():
    found = weighted(X0Weight(), X0Prediction(), ZERO_SNR)
    torch.testing.assert_close(found, PICTURES.square().flatten(1).mean(1), rtol=1e-3, atol=0)


def test_the_mean_of_a_loss_is_weighted():
    loss = Loss(torch.tensor([1.0, 3.0]), torch.tensor([0.1, 0.9]), torch.tensor([0.5, 2.0]))
    assert loss.mean.item() == pytest.approx((0.5 * 1 + 2 * 3) / 2)
