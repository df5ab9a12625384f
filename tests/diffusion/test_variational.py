"""The bound as an objective: its mean is the bound, and the hybrid leaves the mean alone."""

import pytest
import torch

from unnoise.diffusion import schedules
from unnoise.diffusion.denoiser import (
    Denoised,
    Denoiser,
    EDMPrediction,
    EpsilonPrediction,
    FlowPrediction,
    X0Prediction,
)
from unnoise.diffusion.levels import diffuse, posterior_variance, transition
from unnoise.diffusion.likelihood import bound
from unnoise.diffusion.noise import Noise
from unnoise.diffusion.objectives import HybridLoss, SimpleLoss, VariationalBound, bound_term
from unnoise.diffusion.oracle import GaussianOracle
from unnoise.diffusion.schedules import EDMSchedule, RectifiedFlow

T = 25
SCHEDULES = [
    schedules.linear(T=T, beta_T=0.4),
    schedules.zero_terminal_snr(schedules.linear(T=T, beta_T=0.4)),
    RectifiedFlow(T=T),
    EDMSchedule(T=T),
]
ALL_LEVELS = (torch.arange(T) + 0.5) / T
PICTURES = (Noise(3, torch.arange(T)).normal("data", (2, 3, 3)) * 40 + 128).round() / 127.5 - 1


class Fixed(Noise):
    """The same eps at every draw."""

    def normal(self, purpose, shape, draw=0):
        return Noise(0, torch.zeros_like(self.ids)).normal("eps", shape)


NOISE = Fixed(0, torch.arange(T))


class Shrinks(torch.nn.Module):
    """A small network with two outputs a channel, one for x0 and one for the variance."""

    def __init__(self, mean=0.3, spread=-0.4):
        super().__init__()
        self.mean = torch.nn.Parameter(torch.tensor(mean))
        self.spread = torch.nn.Parameter(torch.tensor(spread))

    def forward(self, x, t, condition):
        return torch.cat((self.mean * x, self.spread * x.cos()), 1)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("variance", ["beta", "posterior", "learned"])
def test_mean_over_all_levels_is_the_bound_less_its_prior_term(schedule, variance):
    denoiser = Denoiser(Shrinks(), X0Prediction(), learned_variance=True)
    x0 = PICTURES[:1].expand(T, -1, -1, -1)
    objective = VariationalBound(variance)
    found = objective(denoiser, schedule, x0, ALL_LEVELS, None, NOISE)
    terms = bound(denoiser, schedule.grid(), x0[:1], Fixed(0, torch.arange(1)), variance)
    torch.testing.assert_close(
        found.double().mean(), (terms.total - terms.prior)[0], rtol=1e-5, atol=0
    )


def test_hybrid_is_l_simple_plus_lambda_times_the_bound():
    schedule = SCHEDULES[0]
    denoiser = Denoiser(Shrinks(), EpsilonPrediction(), learned_variance=True)

    def value(objective):
        return objective(denoiser, schedule, PICTURES, ALL_LEVELS, None, NOISE)

    expected = value(SimpleLoss()) + 0.01 * value(VariationalBound("learned"))
    torch.testing.assert_close(value(HybridLoss(0.01)), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("schedule", "prediction"),
    [
        (schedules.linear(), EpsilonPrediction()),
        (schedules.cosine(), EpsilonPrediction()),
        (RectifiedFlow(), FlowPrediction()),
        (EDMSchedule(), EDMPrediction()),
    ],
)
def test_the_bound_in_hybrid_does_not_move_the_mean(schedule, prediction):
    """Gradients by the mean half are L_simple's, bit for bit; those by the variance half exist."""

    def gradients(objective, levels):
        network = Shrinks()
        denoiser = Denoiser(network, prediction, learned_variance=True)
        loss = objective(denoiser, schedule, PICTURES, levels, None, NOISE).mean()
        loss.backward()
        return network.mean.grad, network.spread.grad

    for levels in (ALL_LEVELS, torch.zeros(T)):  # at u = 0 the term is the decoder's
        hybrid = gradients(HybridLoss(1.0), levels)
        heavier = gradients(HybridLoss(1000.0), levels)
        assert torch.equal(hybrid[0], heavier[0])
        assert hybrid[1] != 0
        assert bool(heavier[1].isfinite())
        torch.testing.assert_close(heavier[1], 1000 * hybrid[1], rtol=1e-4, atol=0)


def test_hybrid_without_a_learned_variance_is_refused():
    denoiser = Denoiser(Shrinks(), EpsilonPrediction())
    with pytest.raises(ValueError, match="learned_variance=true"):
        HybridLoss()(denoiser, SCHEDULES[0], PICTURES, ALL_LEVELS, None, NOISE)


def test_a_schedule_of_one_level_is_refused():
    denoiser = Denoiser(Shrinks(), X0Prediction(), learned_variance=True)
    with pytest.raises(ValueError, match="at least two levels, T >= 2"):
        VariationalBound()(denoiser, RectifiedFlow(T=1), PICTURES, ALL_LEVELS, None, NOISE)


def test_gradients_of_the_bound_are_finite_at_every_level():
    for schedule, prediction in (
        (schedules.cosine(), EpsilonPrediction()),
        (RectifiedFlow(), FlowPrediction()),
        (EDMSchedule(), EDMPrediction()),
    ):
        network = Shrinks()
        denoiser = Denoiser(network, prediction, learned_variance=True)
        u = torch.linspace(0, 1 - 2**-24, T)
        VariationalBound("learned")(denoiser, schedule, PICTURES, u, None, NOISE).sum().backward()
        assert bool(network.mean.grad.isfinite())
        assert bool(network.spread.grad.isfinite())


def test_the_learned_variance_is_best_where_the_optimal_one_lies():
    """The bound's gradient by the fraction vanishes at σ² = β̃ + c²·Var(x0 | x_t)."""
    schedule, oracle = schedules.linear(), GaussianOracle()
    k, n = 300, 20_000
    t, s = schedule.level(torch.tensor(k)), schedule.level(torch.tensor(k - 1))
    noise = Noise(0, torch.arange(n))
    x0 = oracle.mu + oracle.s * noise.normal("data", (1,)).double()
    x_t = diffuse(x0, noise.normal("eps", (1,)).double(), t)
    low, high = posterior_variance(t, s), transition(s, t)[1]
    optimal = low + (s.alpha * high / t.sigma**2) ** 2 * oracle.posterior_variance(t)
    fraction = ((optimal / low).log() / (high / low).log()).expand(n, 1).clone().requires_grad_()
    denoised = Denoised(*oracle(x_t, t)[:2], fraction)
    loss = bound_term(denoised, schedule, x0, x_t, torch.full((n,), k), "learned")
    slope = torch.autograd.grad(loss.sum(), fraction)[0]
    assert abs(slope.mean()) < 4 * slope.std() / n**0.5
