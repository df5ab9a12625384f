"""Samplers against the Gaussian oracle, where every marginal is known exactly."""

import math
from itertools import pairwise

import pytest
import torch
from gaussian import affine

from unnoise.diffusion import schedules
from unnoise.diffusion.denoiser import Clip, Denoised, thresholded
from unnoise.diffusion.levels import CLEAN, posterior, posterior_variance, transition
from unnoise.diffusion.noise import Noise
from unnoise.diffusion.oracle import GaussianOracle
from unnoise.diffusion.samplers import DDIM, Ancestral, Sampler, Walk, sample
from unnoise.diffusion.schedules import EDMSchedule

ORACLE = GaussianOracle()
LINEAR = schedules.linear()


def walk(z=None):
    """A walk by the oracle whose noise is z."""
    return Walk(ORACLE, LINEAR, lambda: z)


def moments(stepper, levels, extra_variance=None):
    """Mean and variance of the picture, propagated exactly through every (affine) step."""
    mean, variance = 0.0, 1.0
    x, z = torch.tensor([[[0.0], [1.0], [0.0]], [[0.0], [0.0], [1.0]]], dtype=torch.float64)
    for now, to in pairwise(levels):
        at_zero, at_one, with_noise = stepper.step(walk(z), x, now, to).flatten()
        slope, std = at_one - at_zero, with_noise - at_zero
        mean, variance = slope * mean + at_zero, slope**2 * variance + std**2
        if extra_variance is not None:
            variance += extra_variance(now, to)
    return float(mean), float(variance)


@pytest.mark.parametrize(("steps", "ratio"), [(50, 0.811), (250, 0.958), (1000, 0.988)])
def test_ddim_variance_ratio(steps, ratio):
    _, variance = moments(DDIM(), LINEAR.grid(steps))
    assert variance / ORACLE.s**2 == pytest.approx(ratio, abs=1e-3)


@pytest.mark.parametrize(("steps", "ratio"), [(50, 0.673), (250, 0.901), (1000, 0.970)])
def test_ancestral_variance_ratio(steps, ratio):
    _, variance = moments(Ancestral("posterior"), LINEAR.grid(steps))
    assert variance / ORACLE.s**2 == pytest.approx(ratio, abs=1e-3)


@pytest.mark.parametrize("steps", [1, 7, 50, 1000])
def test_ddim_is_the_moment_recursion(steps):
    """slope = Π (a_s·x0' + sigma_s·eps') over the grid, whose last level is clean: to 1e-12.

    A grid that ends at ᾱ_0 instead of 1 would change the variance by 0.31 %.
    """
    levels = LINEAR.grid(steps)
    slope = 1.0
    for now, to in pairwise(levels):
        v = now.alpha**2 * ORACLE.s**2 + now.sigma**2
        slope *= float(to.alpha * now.alpha * ORACLE.s**2 / v + to.sigma * now.sigma / v)
    found, _ = affine(lambda x: sample(walk(), DDIM(), levels, x))
    assert found**2 == pytest.approx(slope**2, abs=1e-12)


@pytest.mark.parametrize("steps", [1, 5, 50, 1000])
@pytest.mark.parametrize("make", [schedules.linear, schedules.cosine, schedules.sigmoid])
def test_optimal_variance_gives_the_exact_marginal(steps, make):
    """σ² = β̃ + c²·Var(x0|x_t), c the posterior mean's weight on x0: exact at any step count."""

    def missing(now, to):
        c = to.alpha * transition(to, now)[1] / now.sigma**2
        return c**2 * ORACLE.posterior_variance(now)

    schedule = make()
    levels = schedule.grid(steps)
    mean, variance = moments(Ancestral("posterior"), levels, missing)
    start = levels[0]  # N(0, I) is started from, not the marginal at T: carried through exactly
    v_T = float(start.alpha**2 * ORACLE.s**2 + start.sigma**2)
    slope = float(start.alpha) * ORACLE.s**2 / v_T  # E[x0 | x_T] is what survives of the start
    assert variance == pytest.approx(ORACLE.s**2 + slope**2 * (1 - v_T), abs=1e-5)
    assert mean == pytest.approx(ORACLE.mu * (1 - slope * float(start.alpha)), abs=1e-5)


def test_ddim_with_eta_one_is_ancestral_with_beta_tilde():
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    for now, to in pairwise(LINEAR.grid(20, "quadratic")):
        z = torch.randn_like(x)
        a = DDIM(eta=1.0).step(walk(z), x, now, to)
        b = Ancestral("posterior").step(walk(z), x, now, to)
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


def test_ancestral_is_algorithm_2():
    """Line 4 of the paper, written with ε, for both variances and without noise."""
    x, z = torch.randn(2, 2, 3, 4, 4, dtype=torch.float64)
    for t in (1, 400, 999):
        now, to = LINEAR.level(torch.tensor(t)), LINEAR.level(torch.tensor(t - 1))
        beta, alpha_bar = LINEAR.betas[t], LINEAR.alphas_cumprod[t]
        mean = (x - beta / (1 - alpha_bar).sqrt() * ORACLE(x, now).eps) / (1 - beta).sqrt()
        before = LINEAR.alphas_cumprod[t - 1]
        variances = {"beta": beta, "posterior": (1 - before) / (1 - alpha_bar) * beta, "none": 0}
        for name, variance in variances.items():
            found = Ancestral(name).step(walk(z), x, now, to)
            expected = mean + torch.as_tensor(variance, dtype=torch.float64).sqrt() * z
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("stepper", [Ancestral("beta"), Ancestral("posterior"), DDIM(), DDIM(1.0)])
def test_last_step_is_the_prediction_without_noise(stepper):
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    now = LINEAR.level(torch.tensor(0))
    result = stepper.step(walk(torch.full_like(x, torch.nan)), x, now, CLEAN)
    torch.testing.assert_close(result, ORACLE(x, now).x0, rtol=1e-12, atol=1e-12)


def test_without_noise_pictures_collapse_to_the_mean():
    """The ablation: no noise in algorithm 2 leaves under a tenth of the data's variance."""
    mean, variance = moments(Ancestral("none"), LINEAR.grid(1000))
    assert variance < 0.1 * ORACLE.s**2
    assert mean == pytest.approx(ORACLE.mu, abs=0.02)


@pytest.mark.parametrize(
    "stepper",
    [DDIM(), DDIM(0.5), Ancestral("beta"), Ancestral("posterior")],
    ids=["ddim", "ddim-0.5", "beta", "posterior"],
)
def test_fifty_thousand_samples_agree_with_the_exact_moments(stepper):
    n, levels = 50_000, LINEAR.grid(50)
    mean, variance = moments(stepper, levels)
    x = Sampler(stepper, steps=50)(ORACLE, LINEAR, (1,), Noise(0, torch.arange(n))).double()
    assert abs(x.mean() - mean) * math.sqrt(n / variance) < 4
    assert abs(x.var() / variance - 1) / math.sqrt(2 / n) < 4


def test_ddim_encodes_and_decodes_with_error_falling_as_one_over_n():
    errors = []
    x0 = torch.tensor([[-0.2], [0.3], [0.7]], dtype=torch.float64)
    for steps in (100, 200, 400):
        levels = LINEAR.grid(steps)[:-1]
        up = sample(walk(), DDIM(), levels[::-1], x0)
        errors.append((sample(walk(), DDIM(), levels, up) - x0).abs().max().item())
    orders = [math.log2(a / b) for a, b in pairwise(errors)]
    assert all(0.85 < order < 1.15 for order in orders), (errors, orders)


def test_threshold_is_applied_at_every_step():
    seen = []

    def wild(x, level):
        return Denoised(5 * torch.ones_like(x), x)

    Sampler(Ancestral("beta"), steps=5, threshold=Clip())(
        wild, LINEAR, (2,), Noise(0, torch.arange(3)), lambda x, level: seen.append(x)
    )
    assert len(seen) == 5
    assert torch.equal(seen[-1], torch.ones(3, 2))


def test_final_mean_uses_posterior_of_clipped_picture():
    """Clipping x0 and then taking the posterior mean, as DDPM's code does."""
    x = 3 * torch.randn(4, 5, dtype=torch.float64)
    now, to = LINEAR.level(torch.tensor(300)), LINEAR.level(torch.tensor(250))
    clipped = Walk(thresholded(ORACLE, Clip()), LINEAR, lambda: x)
    found = Ancestral("none").step(clipped, x, now, to)
    expected = posterior(ORACLE(x, now).x0.clamp(-1, 1), x, now, to).mean
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert posterior_variance(now, to) > 0


@pytest.mark.parametrize("sigma_min", [1e-3, 1e-5, 1e-8])
def test_ddim_with_eta_one_stays_finite_where_a_step_forgets_everything(sigma_min):
    """There β̃ is sigma_s² up to rounding, which must not make sigma_s² − β̃ negative."""
    schedule = EDMSchedule(sigma_min=sigma_min)
    x = Sampler(DDIM(1.0), 2)(ORACLE, schedule, (1,), Noise(0, torch.arange(4)))
    assert bool(x.isfinite().all())
