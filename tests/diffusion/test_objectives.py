"""L_simple against its known least value and its value for a network that says nothing."""

import math

import torch
from gaussian import GaussianOracle

from unnoise.diffusion import schedules
from unnoise.diffusion.denoiser import Denoiser, EpsilonPrediction
from unnoise.diffusion.objectives import Loss, SimpleLoss
from unnoise.diffusion.random import Noise
from unnoise.diffusion.times import UniformTimes

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
