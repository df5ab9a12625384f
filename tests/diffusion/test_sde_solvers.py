"""Stochastic samplers: their formulas, and Langevin dynamics on a Gaussian in closed form."""

import pytest
import torch

from unnoise.diffusion import schedules
from unnoise.diffusion.levels import CLEAN
from unnoise.diffusion.oracle import GaussianOracle, exact_moments
from unnoise.diffusion.samplers import (
    DDIM,
    Ancestral,
    AnnealedLangevin,
    DPMSolver,
    EulerMaruyama,
    PredictorCorrector,
    Stepper,
    UniPC,
    Walk,
)
from unnoise.diffusion.samplers.stochastic import langevin
from unnoise.diffusion.schedules import EDMSchedule, RectifiedFlow

LINEAR, ORACLE = schedules.linear(), GaussianOracle()
X, Z = torch.randn(2, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def walk(z=Z):
    return Walk(ORACLE, LINEAR, lambda: z)


def marginal_variance(level):
    return float((level.alpha * ORACLE.s) ** 2 + level.sigma**2)


class Repeat(Stepper):
    """A Langevin step as a stepper, so that its moments can be had."""

    def __init__(self, times, step_size):
        self.times, self.step_size = times, step_size

    def step(self, walk, x, now, to):
        for _ in range(self.times):
            x = langevin(walk, x, now, self.step_size)
        return x


def test_euler_maruyama_in_ddpms_beta():
    """x + β/2·x + β·score + √β·z for small β (Song et al. 2021, appendix E)."""
    t = 500
    now, to = LINEAR.level(torch.tensor(t)), LINEAR.level(torch.tensor(t - 1))
    beta, score = LINEAR.betas[t], -ORACLE(X, now).eps / now.sigma
    expected = X + beta / 2 * X + beta * score + beta.sqrt() * Z
    found = EulerMaruyama().step(walk(), X, now, to)
    torch.testing.assert_close(found, expected, rtol=0, atol=float(beta**2))


def test_euler_maruyama_without_drift_where_variance_explodes():
    """x − (sigma_t² − sigma_s²)·ε/sigma_t + √(sigma_t² − sigma_s²)·z (the same, appendix F)."""
    now, to = EDMSchedule().grid(9)[3:5]
    v = now.sigma**2 - to.sigma**2
    expected = X - v / now.sigma * ORACLE(X, now).eps + v.sqrt() * Z
    found = EulerMaruyama().step(walk(), X, now, to)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_euler_maruyama_from_zero_snr_is_ancestral():
    flow = RectifiedFlow()
    now, to = flow.level(torch.tensor(1.0)), flow.level(torch.tensor(0.9))
    found = EulerMaruyama().step(walk(), X, now, to)
    expected = to.alpha * ORACLE(X, now).x0 + to.sigma * Z
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(Ancestral("posterior").step(walk(), X, now, to), found)


def test_last_step_of_euler_maruyama_has_no_noise():
    now = LINEAR.level(torch.tensor(0))
    found = EulerMaruyama().step(walk(Z * torch.nan), X, now, CLEAN)
    torch.testing.assert_close(found, ORACLE(X, now).x0, rtol=0, atol=1e-4)


@pytest.mark.parametrize("step_size", [1.0, 0.3, 0.05])
def test_langevin_ends_in_the_gaussian_but_for_its_step_size(step_size):
    """Its stationary variance is v/(1 − a/2), a = step_size·sigma²/(2v), whatever it began with."""
    level = LINEAR.level(torch.tensor(100))
    v = marginal_variance(level)
    a = step_size * float(level.sigma**2) / (2 * v)
    repeat = Repeat(int(20 / a), step_size)
    mean, variance = exact_moments(repeat, LINEAR, [level, level], mean=3.0, variance=4.0)
    assert mean == pytest.approx(float(level.alpha) * ORACLE.mu, abs=1e-6)
    assert variance == pytest.approx(v / (1 - a / 2), rel=1e-6)


def test_annealed_langevin_keeps_y_between_levels():
    now, to = LINEAR.level(torch.tensor(500)), LINEAR.level(torch.tensor(400))
    found = AnnealedLangevin(1, 0.1).step(walk(), X, now, to)
    expected = langevin(walk(), X, now, 0.1)
    torch.testing.assert_close(found / to.alpha, expected / now.alpha, rtol=1e-12, atol=1e-12)


def test_annealed_langevin_ends_in_the_prediction():
    now = LINEAR.level(torch.tensor(10))
    found = AnnealedLangevin(1, 0.1).step(walk(), X, now, CLEAN)
    expected = ORACLE(langevin(walk(), X, now, 0.1), now).x0
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def ending(stepper, schedule, step_size):
    """Variance at a level as noisy as the data is wide, and what Langevin's steps make of it."""
    levels = [s for s in schedule.grid(31, "log_snr")[:-1] if s.sigma > ORACLE.s * s.alpha]
    v = marginal_variance(levels[-1])
    _, variance = exact_moments(stepper, schedule, levels, variance=float(levels[0].sigma ** 2))
    a = step_size * float(levels[-1].sigma ** 2) / (2 * v)
    return variance / v, 1 / (1 - a / 2)


@pytest.mark.parametrize("schedule", [LINEAR, EDMSchedule(), RectifiedFlow()])
@pytest.mark.parametrize(("corrections", "step_size"), [(10, 0.8), (40, 0.2), (160, 0.05)])
def test_corrections_lead_to_the_variance_of_their_step_size(schedule, corrections, step_size):
    """Which is the marginal's as step_size falls to 0, and the predictor's error is forgotten."""
    alone, _ = ending(DDIM(), schedule, step_size)
    corrected = PredictorCorrector(DDIM(), corrections, step_size)
    found, expected = ending(corrected, schedule, step_size)
    assert found == pytest.approx(expected, abs=0.002)
    assert abs(alone - 1) > 0.05


@pytest.mark.parametrize("predictor", [DPMSolver(), UniPC()])
def test_a_solver_that_remembers_starts_afresh_from_what_was_corrected(predictor):
    stepper, begun = PredictorCorrector(predictor, 2, 0.1), walk()
    first, second, third = LINEAR.grid(9, "log_snr")[3:6]
    x = stepper.step(begun, X, first, second)
    found = stepper.step(begun, x, second, third)
    assert torch.equal(found, stepper.step(walk(), x, second, third))


@pytest.mark.parametrize("schedule", [LINEAR, EDMSchedule(), RectifiedFlow()])
def test_annealed_langevin_comes_to_the_variance_of_the_data(schedule):
    errors = []
    for count, step_size in ((10, 0.8), (40, 0.4), (160, 0.2)):
        levels = schedule.grid(20, "log_snr")
        stepper = AnnealedLangevin(count, step_size)
        power = float(levels[0].alpha ** 2 + levels[0].sigma ** 2)
        _, variance = exact_moments(stepper, schedule, levels, variance=power)
        errors.append(abs(variance / ORACLE.s**2 - 1))
    assert errors[0] > errors[1] > errors[2], errors
