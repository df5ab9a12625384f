"""Solvers of the probability-flow ODE, whose exact solution the Gaussian oracle has."""

from itertools import pairwise

import pytest
import torch
from gaussian import GaussianMixtureOracle

from unnoise.diffusion import schedules
from unnoise.diffusion.levels import CLEAN, transition
from unnoise.diffusion.oracle import GaussianOracle, exact_moments
from unnoise.diffusion.samplers import DDIM, AdaptiveODE, Euler, Heun, Walk, sample
from unnoise.diffusion.schedules import EDMSchedule, RectifiedFlow

ORACLE = GaussianOracle()
SCHEDULES = [schedules.linear(), schedules.cosine(), EDMSchedule(), RectifiedFlow()]
X = torch.tensor([[-1.0], [0.2], [1.3]], dtype=torch.float64)


def walk(schedule, z=None, denoise=ORACLE):
    return Walk(denoise, schedule, lambda: z)


def counted(denoise):
    calls = []
    return calls, lambda x, level: calls.append(level) or denoise(x, level)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_euler_is_ddim_without_noise(schedule):
    for now, to in pairwise(schedule.grid(20)):
        steps = (stepper.step(walk(schedule), X, now, to) for stepper in (Euler(), DDIM()))
        torch.testing.assert_close(*steps, rtol=0, atol=1e-10)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_euler_is_the_step_of_the_ode_in_y(schedule):
    for now, to in pairwise(schedule.grid(20, "log_snr")):
        slope = ORACLE(X, now).eps
        y = X / now.alpha + (to.sigma / to.alpha - now.sigma / now.alpha) * slope
        found = Euler().step(walk(schedule), X, now, to)
        torch.testing.assert_close(found, to.alpha * y, rtol=1e-9, atol=1e-9)


def test_heun_is_algorithm_1_in_y():
    schedule = schedules.cosine()
    now, to = schedule.level(torch.tensor(700)), schedule.level(torch.tensor(640))
    width = to.sigma / to.alpha - now.sigma / now.alpha
    d = ORACLE(X, now).eps
    d_s = ORACLE(to.alpha * (X / now.alpha + width * d), to).eps
    expected = to.alpha * (X / now.alpha + width * (d + d_s) / 2)
    found = Heun().step(walk(schedule), X, now, to)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("stepper", [Heun(), AdaptiveODE()])
def test_last_step_is_the_prediction(stepper):
    schedule = EDMSchedule()
    now = schedule.grid(5)[-2]
    denoised = ORACLE(X, now).x0
    found = stepper.step(walk(schedule, torch.zeros_like(X)), X, now, CLEAN)
    torch.testing.assert_close(found, denoised, rtol=0, atol=1e-5)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_churn_raises_the_level_by_gamma_and_the_noise_with_it(schedule):
    calls, denoise = counted(ORACLE)
    now, to = schedule.grid(9, "log_snr")[4:6]
    stepper = Heun(0.2)
    mean, variance = exact_moments(stepper, schedule, [now, to], *ORACLE.marginal(now), denoise)
    ratio = (calls[0].sigma / calls[0].alpha) / (now.sigma / now.alpha)
    assert ratio.item() == pytest.approx(1.2, rel=1e-9)
    # a step from the raised level, whose marginal x has after the noise
    raised = ORACLE.marginal(calls[0])
    expected = exact_moments(Heun(), schedule, [calls[0], to], *raised)
    assert (mean, variance) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_s_noise_is_the_standard_deviation_of_what_churn_adds(schedule):
    """With 2, of 4·v in place of v, v the variance of the forward step to the raised level."""
    calls, denoise = counted(ORACLE)
    now, to = schedule.grid(9, "log_snr")[4:6]
    found = exact_moments(
        Heun(0.2, S_noise=2.0), schedule, [now, to], *ORACLE.marginal(now), denoise
    )
    mean, variance = ORACLE.marginal(calls[0])
    raised = variance + 3 * transition(now, calls[0])[1].item()
    expected = exact_moments(Heun(), schedule, [calls[0], to], mean, raised)
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_churn_stays_below_the_noisiest_level(schedule):
    calls, denoise = counted(ORACLE)
    levels = schedule.grid(3)
    sample(walk(schedule, torch.ones_like(X), denoise), Heun(0.4), levels, X)
    assert all(level.log_snr >= levels[0].log_snr - 1e-9 for level in calls)


def test_churn_is_kept_to_its_levels():
    schedule = EDMSchedule()
    for now, to in pairwise(schedule.grid(9, "karras")[:-1]):
        steps = [s.step(walk(schedule, X), X, now, to) for s in (Heun(0.4, 0.05, 10.0), Heun())]
        assert torch.equal(*steps) == (not 0.05 <= now.sigma <= 10)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("tolerance", [1e-3, 1e-5, 1e-7])
def test_adaptive_solver_keeps_its_tolerance(schedule, tolerance):
    now, to = schedule.grid(2, "log_snr")[:2]
    found = AdaptiveODE(tolerance, tolerance).step(walk(schedule), X, now, to)
    torch.testing.assert_close(found, ORACLE.along_the_ode(X, now, to), rtol=0, atol=30 * tolerance)


@pytest.mark.parametrize("loose", [(1e-2, 1e-8), (1e-8, 1e-2)])
def test_either_tolerance_may_be_the_loose_one(loose):
    def evaluations(rtol, atol):
        calls, denoise = counted(ORACLE)
        now, to = schedules.linear().grid(2, "log_snr")[:2]
        AdaptiveODE(rtol, atol).step(walk(schedules.linear(), None, denoise), X, now, to)
        return len(calls)

    assert evaluations(*loose) < 0.5 * evaluations(1e-8, 1e-8)


def test_adaptive_solver_agrees_with_many_steps_of_heun_on_a_mixture():
    schedule, oracle = schedules.cosine(), GaussianMixtureOracle()
    calls, denoise = counted(oracle)
    x = sample(
        walk(schedule, None, denoise), AdaptiveODE(1e-6, 1e-6), schedule.grid(2, "log_snr"), X
    )
    fine = sample(walk(schedule, None, oracle), Heun(), schedule.grid(900, "log_snr"), X)
    torch.testing.assert_close(x, fine, rtol=0, atol=1e-3)
    assert len(calls) < 600


def test_adaptive_solver_leaves_zero_snr_by_a_small_step():
    schedule = RectifiedFlow()
    now, to = schedule.level(torch.tensor(1.0)), schedule.level(torch.tensor(0.1))
    found = AdaptiveODE(1e-6, 1e-6).step(walk(schedule), X, now, to)
    torch.testing.assert_close(found, ORACLE.along_the_ode(X, now, to), rtol=0, atol=1e-3)
