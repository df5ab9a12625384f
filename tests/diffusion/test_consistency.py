"""The loss and the levels of consistency models; closed forms stand in evaluation/selftest."""

import math

import pytest
import torch
from gaussian import SCHEDULES
from hypothesis import given
from hypothesis import strategies as st

from unnoise.diffusion import schedules
from unnoise.diffusion.consistency import ConsistencyLoss, check_consistency
from unnoise.diffusion.denoiser import (
    Denoised,
    Denoiser,
    EDMPrediction,
    EpsilonPrediction,
    FlowPrediction,
    VPrediction,
    X0Prediction,
)
from unnoise.diffusion.levels import diffuse, match
from unnoise.diffusion.noise import Noise
from unnoise.diffusion.objectives import Noised
from unnoise.diffusion.samplers import Consistency, Sampler
from unnoise.diffusion.schedules import EDMSchedule, LogitNormalFlow, RectifiedFlow

SHAPE, N = (3, 4, 4), 64
PICTURES = 0.3 + 0.25 * Noise(99, torch.arange(N)).normal("data", SHAPE)
NOISE, U = Noise(1, torch.arange(N)), torch.linspace(0, 1 - 2**-24, N)
on_every_path = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)


class Scaled(torch.nn.Module):
    """F = w·x·cos t: another function at each level."""

    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.tensor(0.7))

    def forward(self, x, t, condition):
        return self.w * x * match((0.01 * t).cos(), x)


class Dropped(torch.nn.Module):
    """Keeps what its dropout left of ones."""

    def __init__(self):
        super().__init__()
        self.dropout, self.seen = torch.nn.Dropout(0.5), []

    def forward(self, x, t, condition):
        self.seen.append(self.dropout(torch.ones_like(x)))
        return x * self.seen[-1]


def loss_of(objective, schedule, denoiser, u=U):
    return objective(denoiser, schedule, PICTURES, u, None, NOISE)


@pytest.mark.parametrize(
    ("step", "stage"), [(0, 0), (9, 0), (10, 1), (14, 1), (15, 2), (24, 3), (25, 3), (999, 3)]
)
def test_the_stage_is_a_function_of_the_step(step, stage):
    objective = ConsistencyLoss(every=5, stages=3, diffusion_steps=10)
    assert objective.at(step).stage == stage
    assert objective.stage == 3
    assert objective.at(999).at(step).stage == stage


@on_every_path
@given(stage=st.integers(0, 12))
def test_levels_come_closer_as_the_formula_says(schedule, stage):
    objective = ConsistencyLoss(every=1, stages=12)
    objective.stage = stage
    t = objective.level(schedule, U)
    r, is_clean = objective.closer(schedule, t)
    sigma = (t.sigma / t.alpha).clamp(max=math.e**7)
    expected = sigma * (1 - (1 + 8 / (1 + sigma.exp())) / 2**stage)
    cleanest = schedule.level(torch.tensor(schedule.ends[1]))
    assert torch.equal(is_clean, expected < cleanest.sigma / cleanest.alpha)
    assert not (stage == 0 and not is_clean.all())
    found = (r.sigma / r.alpha)[~is_clean]
    noisiest = schedule.grid(1)[0]  # training times of EDM go beyond
    expected = expected.clamp(max=float(noisiest.sigma / noisiest.alpha))[~is_clean]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)


@on_every_path
def test_stage_0_is_the_error_of_x0_over_the_level(schedule):
    objective, denoiser = (
        ConsistencyLoss(every=1, diffusion_steps=1).at(0),
        Denoiser(Scaled(), EDMPrediction()),
    )
    noised = objective.noised(schedule, PICTURES, U, NOISE)
    x0 = denoiser(noised.x_t, noised.level).x0
    sigma = (noised.level.sigma / noised.level.alpha).clamp(max=math.e**7)
    expected = (x0 - PICTURES).square().flatten(1).mean(1) / sigma
    torch.testing.assert_close(loss_of(objective, schedule, denoiser), expected.float())


@on_every_path
@pytest.mark.parametrize("c", [None, 0.1])
def test_the_target_is_of_the_same_noise_and_has_no_gradient(schedule, c):
    objective = ConsistencyLoss(every=1, c=c).at(3)
    denoiser = Denoiser(Scaled(), VPrediction())
    found = loss_of(objective, schedule, denoiser)
    found.mean().backward()
    slope, denoiser.network.w.grad = denoiser.network.w.grad, None
    noised = objective.noised(schedule, PICTURES, U, NOISE)
    r, is_clean = objective.closer(schedule, noised.level)
    target = denoiser(diffuse(PICTURES, noised.eps, r), r).x0.detach()
    target[is_clean] = PICTURES[is_clean]
    square = (denoiser(noised.x_t, noised.level).x0 - target).square().flatten(1).mean(1)
    distance = square if c is None else (square + c**2).sqrt() - c
    sigma = (noised.level.sigma / noised.level.alpha).clamp(max=math.e**7)
    share = torch.where(is_clean, 1, (1 + 8 / (1 + sigma.exp())) / 2**4)
    expected = distance / (sigma * share)
    torch.testing.assert_close(found, expected.float(), rtol=1e-3, atol=1e-6)
    expected.mean().backward()
    torch.testing.assert_close(slope, denoiser.network.w.grad, rtol=1e-3, atol=0)
    assert slope.isfinite()


@on_every_path
def test_where_the_target_is_the_picture_the_gap_is_the_whole_level(schedule):
    """Of the cleanest levels, whatever the stage: nothing lies between them and the picture."""
    objective = ConsistencyLoss(every=1).at(100)
    t = schedule.level(torch.tensor([schedule.ends[1]], dtype=torch.float64))
    _, is_clean = objective.closer(schedule, t)
    assert is_clean.all()
    x0 = PICTURES[:1].double()
    noised = Noised(x0, x0, x0, t, x0)
    loss = objective.loss(Denoised(x0 + 0.5, x0), noised, schedule)
    torch.testing.assert_close(loss, 0.25 * t.alpha / t.sigma)


def test_both_calls_have_the_same_dropout_and_steps_have_others():
    network, objective = Dropped(), ConsistencyLoss(every=1)
    for step in range(2):
        torch.manual_seed(step)
        loss_of(objective, EDMSchedule(), Denoiser(network, EDMPrediction()))
    first, second, third, fourth = network.seen
    assert torch.equal(first, second)
    assert torch.equal(third, fourth)
    assert not torch.equal(first, third)


def test_validation_leaves_the_generator_alone():
    before = torch.get_rng_state()
    loss_of(ConsistencyLoss(every=1), EDMSchedule(), Denoiser(Scaled(), EDMPrediction()).eval())
    assert torch.equal(before, torch.get_rng_state())


@on_every_path
@pytest.mark.parametrize("prediction", [VPrediction(), FlowPrediction(), EDMPrediction()])
def test_what_fits_is_taken(schedule, prediction):
    check_consistency(prediction, schedule)


@on_every_path
@pytest.mark.parametrize(
    ("prediction", "message"),
    [(X0Prediction(), "does not give back a clean picture"), (EpsilonPrediction(), "enlarges the")],
)
def test_what_does_not_fit_is_refused(schedule, prediction, message):
    with pytest.raises(ValueError, match=message):
        check_consistency(prediction, schedule)


@pytest.mark.parametrize("steps", [1, 2, 4, 7])
@on_every_path
def test_the_levels_of_few_steps_are_quantiles_of_the_training_times(schedule, steps):
    levels = schedule.grid(steps, "training")
    assert len(levels) == steps + 1
    assert levels[0].sigma == schedule.grid(1)[0].sigma
    for k in range(1, steps):
        u = torch.tensor([1 - k / steps], dtype=torch.float64)
        level = schedule.level(schedule.sample_times(u))
        assert float(levels[k].sigma) == pytest.approx(float(level.sigma), rel=1e-12)


def test_levels_stay_within_the_ends_of_the_schedule():
    levels = EDMSchedule(P_mean=3.0, P_std=3.0).grid(5, "training")
    assert max(float(level.sigma) for level in levels) == pytest.approx(80)
    assert all(float(level.sigma) >= 0.002 for level in levels[:-1])


def test_more_steps_than_levels_are_refused():
    with pytest.raises(ValueError, match="use 1 … 8"):
        schedules.linear(T=8, beta_T=0.5).grid(9, "training")


@pytest.mark.parametrize("schedule", [RectifiedFlow(), LogitNormalFlow(std=1.6), EDMSchedule()])
def test_each_step_is_one_call_and_ends_in_a_picture(schedule):
    calls = []

    def denoise(x, level):
        calls.append(float(level.sigma))
        return denoiser(x, level)

    denoiser = Denoiser(Scaled(), EDMPrediction())
    for steps in (1, 2, 4):
        calls.clear()
        sampler = Sampler(Consistency(), steps, "training")
        found = sampler(denoise, schedule, SHAPE, Noise(0, torch.arange(2)))
        assert len(calls) == steps
        assert calls == sorted(calls, reverse=True)
        assert found.isfinite().all()
