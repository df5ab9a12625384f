"""What holds of every sampler, on every family of schedules."""

import math

import pytest
import torch
from gaussian import GaussianMixtureOracle

from unnoise.diffusion import schedules
from unnoise.diffusion.denoiser import Clip, Denoiser, EpsilonPrediction
from unnoise.diffusion.noise import Noise
from unnoise.diffusion.oracle import GaussianOracle, exact_moments
from unnoise.diffusion.samplers import (
    DDIM,
    AdaptiveODE,
    Ancestral,
    AnnealedLangevin,
    DPMSolver,
    Euler,
    EulerMaruyama,
    Heun,
    PredictorCorrector,
    Sampler,
    UniPC,
    Walk,
    sample,
)
from unnoise.diffusion.schedules import DiscreteSchedule, EDMSchedule, RectifiedFlow
from unnoise.evaluation.selftest.samplers import order

DETERMINISTIC = {
    "ddim": DDIM(),
    "euler": Euler(),
    "heun": Heun(),
    "dpm_solver": DPMSolver(),
    "unipc": UniPC(),
}
STOCHASTIC = {
    "beta": Ancestral("beta"),
    "posterior": Ancestral("posterior"),
    "ddim-1": DDIM(1.0),
    "dpm_solver_sde": DPMSolver(1.0),
    "euler_maruyama": EulerMaruyama(),
}
BIASED = {
    "churn": Heun(0.1, S_noise=1.003),
    "annealed_langevin": AnnealedLangevin(5, 0.5),
    "predictor_corrector": PredictorCorrector(EulerMaruyama(), 1, 0.1),
    "corrected_dpm_solver": PredictorCorrector(DPMSolver(), 1, 0.1),
    "corrected_unipc": PredictorCorrector(UniPC(), 5, 0.1),
}
ADAPTIVE = {"adaptive_ode": AdaptiveODE()}
FIXED = DETERMINISTIC | STOCHASTIC | BIASED
SCHEDULES = {
    "linear": schedules.linear(),
    "cosine": schedules.cosine(),
    "edm": EDMSchedule(),
    "flow": RectifiedFlow(),
}
ZERO_SNR = {
    "discrete": DiscreteSchedule(
        torch.linspace(1e-4, 0.03, 200, dtype=torch.float64).index_fill(0, torch.tensor(199), 1.0)
    ),
    "flow": RectifiedFlow(),
}
ORACLE = GaussianOracle()


def every(table):
    return pytest.mark.parametrize("stepper", table.values(), ids=table)


def on(table):
    return pytest.mark.parametrize("schedule", table.values(), ids=table)


def regular(steps):
    """Levels at equal distances of ln SNR, from noise to a fine level that is not clean."""
    return SCHEDULES["linear"].grid(steps + 1, "log_snr")[:-1]


@every(DETERMINISTIC)
def test_error_of_x_falls_with_the_declared_order(stepper):
    x, steps, errors = torch.tensor([[-1.0], [0.2], [1.3]], dtype=torch.float64), [], []
    for n in (80, 160, 320):
        levels = regular(n)
        exact = ORACLE.along_the_ode(x, levels[0], levels[-1])
        found = sample(Walk(ORACLE, SCHEDULES["linear"], torch.empty), stepper, levels, x)
        steps, errors = [*steps, n], [*errors, (found - exact).abs().max().item()]
    assert order(steps, errors) == pytest.approx(stepper.order, abs=0.1), errors


@every(STOCHASTIC)
def test_error_of_the_variance_falls_with_the_declared_order(stepper):
    steps, errors = [80, 160, 320], []
    for n in steps:
        levels = regular(n)
        _, variance = exact_moments(
            stepper, SCHEDULES["linear"], levels, *ORACLE.marginal(levels[0])
        )
        errors.append(abs(variance - ORACLE.marginal(levels[-1])[1]))
    assert order(steps, errors) == pytest.approx(stepper.order, abs=0.1), errors


@on(SCHEDULES)
@every(FIXED)
def test_gaussian_pictures_have_the_moments_of_the_data(stepper, schedule):
    levels = schedule.grid(120, "log_snr")
    power = float(levels[0].alpha ** 2 + levels[0].sigma ** 2)
    mean, variance = exact_moments(stepper, schedule, levels, variance=power)
    assert mean == pytest.approx(ORACLE.mu, abs=0.01)
    assert math.sqrt(variance) == pytest.approx(ORACLE.s, rel=0.08)


@on(SCHEDULES)
@every(FIXED | ADAPTIVE)
def test_pictures_of_a_mixture_have_the_moments_of_the_data(stepper, schedule):
    oracle, n = GaussianMixtureOracle(), 2000
    steps = 2 if isinstance(stepper, AdaptiveODE) else 60
    x = Sampler(stepper, steps, "log_snr")(oracle, schedule, (1,), Noise(0, torch.arange(n)))
    std = math.sqrt(oracle.variance)
    assert x.mean().item() == pytest.approx(oracle.mu, abs=4 * std / math.sqrt(n))
    assert x.std().item() == pytest.approx(std, rel=0.06)


@on(ZERO_SNR)
@every(FIXED)
@pytest.mark.parametrize("spacing", ["uniform", "log_snr"])
def test_a_walk_may_begin_where_nothing_is_left_of_the_picture(stepper, schedule, spacing):
    mean, variance = exact_moments(stepper, schedule, schedule.grid(60, spacing))
    even = spacing == "log_snr" and stepper.order >= 2
    assert mean == pytest.approx(ORACLE.mu, abs=0.004)
    assert math.sqrt(variance) == pytest.approx(ORACLE.s, rel=0.02 if even else 0.15)


@every(FIXED)
def test_one_step_from_nothing_is_the_mean_of_the_data(stepper):
    noise = Noise(1, torch.arange(3))
    x = Sampler(stepper, 1)(ORACLE, RectifiedFlow(), (1,), noise)
    torch.testing.assert_close(x, torch.full_like(x, ORACLE.mu))


@on(SCHEDULES)
@every(FIXED | ADAPTIVE)
def test_float32_is_enough(stepper, schedule):
    levels = schedule.grid(20, "log_snr")
    x = 2 * levels[0].sigma * torch.randn(4, 3, dtype=torch.float64)
    z = torch.randn(400, 4, 3, dtype=torch.float64)

    def picture(dtype):
        draws = iter(z.to(dtype))
        return sample(Walk(ORACLE, schedule, lambda: next(draws)), stepper, levels, x.to(dtype))

    single, double = picture(torch.float32), picture(torch.float64)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), double, rtol=0, atol=2e-3)


@every(FIXED)
def test_no_step_looks_at_x(stepper):
    """On the meta device a number cannot be read: on a GPU no step waits for one."""

    def denoise(x, level):
        assert level.alpha.device.type == "cpu"
        return ORACLE(x, level)

    x = torch.empty(2, 3, device="meta")
    levels = schedules.linear().grid(4, "log_snr")
    walk = Walk(denoise, schedules.linear(), lambda: torch.empty_like(x))
    assert sample(walk, stepper, levels, x).device.type == "meta"


class Wiggle(torch.nn.Module):
    """A small nonlinear network, so that a leak between samples would show."""

    def forward(self, x, t, condition):
        return torch.sin(3 * x) * 0.5 + 0.001 * t.view(-1, 1, 1, 1)


@every(FIXED)
def test_picture_k_is_the_same_in_any_batch(stepper):
    denoiser = Denoiser(Wiggle(), EpsilonPrediction())
    sampler = Sampler(stepper, 10, "log_snr", threshold=Clip())

    def draw(ids):
        return sampler(denoiser, schedules.linear(), (3, 4, 4), Noise(5, torch.tensor(ids)))

    together = draw(list(range(9)))
    torch.testing.assert_close(together[4:7], draw([4, 5, 6]), rtol=0, atol=1e-6)
    torch.testing.assert_close(together[8:], draw([8]), rtol=0, atol=1e-6)
