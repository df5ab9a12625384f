"""Multistep solvers: exact where the prediction of x0 is simple, and what they remember."""

import pytest
import torch

from unnoise.diffusion import schedules
from unnoise.diffusion.denoiser import Denoised
from unnoise.diffusion.levels import CLEAN
from unnoise.diffusion.oracle import GaussianOracle, exact_moments
from unnoise.diffusion.samplers import Ancestral, DPMSolver, Euler, UniPC, Walk, sample
from unnoise.diffusion.schedules import RectifiedFlow

LINEAR = schedules.linear()
X = torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
LEVELS = [LINEAR.level(torch.tensor(t)) for t in (900, 500, 300, 100)]


def walk(denoise=None, z=None):
    return Walk(denoise or GaussianOracle(), LINEAR, lambda: z)


def predicting(x0):
    """Denoise that predicts x0(λ), λ = ½·ln SNR, whatever x is."""

    def denoise(x, level):
        at = x0(level.log_snr / 2) * torch.ones_like(x)
        return Denoised(at, (x - level.alpha * at) / level.sigma)

    return denoise


def integral(x, x0, now, to, n=200_001):
    """The exact solution sigma_s/sigma_t·x + sigma_s·∫ e^λ·x0(λ) dλ, by a fine sum."""
    at = torch.linspace(now.log_snr / 2, to.log_snr / 2, n, dtype=torch.float64)
    return to.sigma / now.sigma * x + to.sigma * torch.trapezoid(at.exp() * x0(at), at)


def constant(lam):
    return torch.full_like(lam, 0.4)


def parabola(lam):
    return 0.4 - 0.1 * lam + 0.05 * lam**2


@pytest.mark.parametrize("stepper", [Euler(), DPMSolver(), UniPC()])
def test_every_step_is_exact_for_a_constant_prediction(stepper):
    found = sample(walk(predicting(constant)), stepper, LEVELS, X)
    expected = integral(X, constant, LEVELS[0], LEVELS[-1])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-7)


def test_the_corrector_of_order_two_is_exact_for_a_quadratic_prediction():
    """Its three predictions are those of a parabola: what the paper's R·ρ = b says."""
    stepper, here = UniPC(), walk(predicting(parabola))
    sample(here, stepper, LEVELS[:3], X)
    _, start = here.memory
    stepper.step(here, X, *LEVELS[2:])
    corrected = here.memory[-1]
    expected = integral(start.x, parabola, start.level, corrected.level)
    torch.testing.assert_close(corrected.x, expected, rtol=0, atol=1e-7)


def test_dpm_solver_is_the_predictor_of_unipc():
    """From the same two visits both take the same step."""
    dpm, unipc = walk(), walk()
    UniPC().step(unipc, X, *LEVELS[:2])
    DPMSolver().step(dpm, X, *LEVELS[:2])
    at = DPMSolver().step(dpm, X, *LEVELS[1:3])
    UniPC().step(unipc, X, *LEVELS[1:3])
    before, here = unipc.memory
    unipc.memory = None
    torch.testing.assert_close(dpm.memory.x0, here.x0, rtol=0, atol=0)
    shift = LEVELS[2].sigma / LEVELS[1].sigma * (here.x - X)  # of x by the corrector
    found = UniPC().step(walk_with(before), X, *LEVELS[1:3])
    torch.testing.assert_close(at + shift, found, rtol=0, atol=1e-12)


def walk_with(visit):
    """A walk that remembers one visit."""
    return Walk(GaussianOracle(), LINEAR, torch.empty, (visit,))


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0, 2.0])
@pytest.mark.parametrize("steps", [2, 5, 20])
def test_one_data_point_keeps_its_noise_at_any_eta(eta, steps):
    """For x0 = mu the prediction is constant and the SDE exact at any step: x_s ~ q(x_s | mu)."""
    levels = LINEAR.grid(steps, "log_snr")[:-1]
    found = exact_moments(
        DPMSolver(eta), LINEAR, levels,
        mean=float(levels[0].alpha * 0.3), variance=float(levels[0].sigma**2),
        oracle=GaussianOracle(mu=0.3, s=0.0),
    )  # fmt: skip
    assert found == pytest.approx((float(levels[-1].alpha * 0.3), float(levels[-1].sigma ** 2)))


def test_first_step_of_the_sde_form_is_ancestral_with_beta_tilde():
    z = torch.randn_like(X)
    a = DPMSolver(1.0).step(walk(z=z), X, *LEVELS[:2])
    b = Ancestral("posterior").step(walk(z=z), X, *LEVELS[:2])
    torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


@pytest.mark.parametrize("stepper", [DPMSolver(), DPMSolver(1.0), UniPC()])
def test_last_step_is_the_prediction_without_noise(stepper):
    here = walk(z=torch.full_like(X, torch.nan))
    here.memory = None
    found = stepper.step(here, X, LEVELS[-1], CLEAN)
    torch.testing.assert_close(found, GaussianOracle()(X, LEVELS[-1]).x0, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("stepper", [DPMSolver(), UniPC()])
def test_nothing_of_a_level_without_picture_bends_the_next_step(stepper):
    flow = RectifiedFlow()
    levels = [flow.level(torch.tensor(t)) for t in (1.0, 0.8, 0.6)]
    there = Euler().step(walk(), X, *levels[:2])
    found = sample(walk(), stepper, levels, X)
    torch.testing.assert_close(found, Euler().step(walk(), there, *levels[1:]), rtol=0, atol=1e-10)
