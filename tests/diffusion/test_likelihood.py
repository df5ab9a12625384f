"""The variational bound against Gaussian data, whose entropy is known."""

import math

import pytest
import torch
from gaussian import SCHEDULES

from unnoise.diffusion import schedules
from unnoise.diffusion.denoiser import Denoised
from unnoise.diffusion.levels import Gaussian, diffuse, reverse_variance
from unnoise.diffusion.likelihood import (
    bound,
    decoder_variance,
    normal_kl,
    pixel_log_likelihood,
    step_term,
)
from unnoise.diffusion.noise import Noise
from unnoise.diffusion.oracle import GaussianOracle, with_optimal_variance
from unnoise.diffusion.schedules import EDMSchedule, RectifiedFlow

ORACLE = GaussianOracle()
LINEAR = schedules.linear()
ENTROPY = 0.5 * math.log2(2 * math.pi * math.e * ORACLE.s**2)  # bits/dim
NODES = torch.tensor([-(3**0.5), 0, 3**0.5], dtype=torch.float64)
WEIGHTS = torch.outer(*[torch.tensor([1 / 6, 2 / 3, 1 / 6], dtype=torch.float64)] * 2).flatten()
X0 = ORACLE.mu + ORACLE.s * NODES.repeat_interleave(3)[:, None]


class GaussHermite(Noise):
    """eps at the nodes that integrate polynomials of degree 5 exactly, beside those of X0."""

    def normal(self, purpose, shape, draw=0):
        return NODES.repeat(3)[:, None]


def mean(values):
    return float(WEIGHTS @ values)


def name(schedule):
    return type(schedule).__name__


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
@pytest.mark.parametrize(("steps", "spacing"), [(2, "uniform"), (10, "karras"), (200, "uniform")])
def test_with_the_best_mean_and_variance_the_bound_is_the_entropy(schedule, steps, spacing):
    """Plus KL(q(x_T) ‖ where sampling starts); the last term is that of a density, in closed form.

    The entropy of x0 given x_1 stands for L_0, so that nothing but L_T and L_{t−1} is tested here.
    """
    levels = schedule.grid(steps, spacing)
    terms = bound(
        with_optimal_variance(ORACLE, levels),
        levels,
        X0,
        GaussHermite(0, torch.arange(9)),
        "learned",
    )
    first, noisiest = levels[-2], levels[0]
    last = 0.5 * math.log2(2 * math.pi * math.e * ORACLE.posterior_variance(first))
    q = Gaussian(noisiest.alpha * ORACLE.mu, noisiest.alpha**2 * ORACLE.s**2 + noisiest.sigma**2)
    start = Gaussian(torch.zeros(()), noisiest.alpha**2 + noisiest.sigma**2)
    excess = float(normal_kl(q, start)) / math.log(2)
    total = mean(terms.prior + terms.steps.sum(1)) + last
    assert total - excess == pytest.approx(ENTROPY, abs=1e-8)
    if schedule is LINEAR and spacing == "uniform":
        assert total == pytest.approx(ENTROPY, abs=1e-5)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
@pytest.mark.parametrize("variance", ["beta", "posterior"])
def test_fixed_variances_never_beat_the_entropy(schedule, variance):
    levels = schedule.grid(100, "log_snr")
    terms = bound(ORACLE, levels, X0, GaussHermite(0, torch.arange(9)), variance)
    first = levels[-2]
    last = 0.5 * math.log2(2 * math.pi * math.e * ORACLE.posterior_variance(first))
    assert mean(terms.prior + terms.steps.sum(1)) + last > ENTROPY
    assert bool((terms.steps >= 0).all())
    assert bool((terms.prior >= 0).all())
    assert bool((terms.decoder >= 0).all())


@pytest.mark.parametrize("schedule", [LINEAR, RectifiedFlow(), EDMSchedule()], ids=name)
@pytest.mark.parametrize("variance", ["beta", "posterior"])
def test_the_whole_bound_of_pixels_lies_above_their_entropy(schedule, variance):
    """Of 7.03 bits/dim; the best prediction in 100 steps of a fixed variance loses up to 2."""
    noise = Noise(0, torch.arange(20_000))
    data = ORACLE.mu + ORACLE.s * noise.normal("data", (1,)).double()
    pixels = (((data + 1) * 127.5).round().clamp(0, 255)) / 127.5 - 1
    levels = (torch.arange(256, dtype=torch.float64) / 127.5 - 1)[:, None]
    log_p = pixel_log_likelihood(
        levels, Gaussian(torch.tensor(ORACLE.mu), torch.tensor(ORACLE.s**2).double())
    )
    entropy = -(log_p.exp() * log_p).sum() / math.log(2)
    total = bound(ORACLE, schedule.grid(100, "log_snr"), pixels, noise, variance).total
    error = total.std() / math.sqrt(20_000)
    assert entropy - 4 * error < total.mean() < entropy + 2.5


def test_a_step_is_the_papers_weighted_error_of_eps():
    """DDPM eq. 12: β²/(2σ²α(1 − ᾱ))·‖ε − ε_θ‖², and what its constant is for σ² = β."""
    t = 400
    beta, alpha_bar = LINEAR.betas[t], LINEAR.alphas_cumprod
    now, to = LINEAR.level(torch.tensor(t)), LINEAR.level(torch.tensor(t - 1))
    x0, eps, wrong = torch.randn(
        3, 5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    x_t = diffuse(x0, eps, now)
    denoised = Denoised((x_t - now.sigma * wrong) / now.alpha, wrong)
    factor = beta**2 / (2 * beta * (1 - beta) * (1 - alpha_bar[t]))
    ratio = (1 - alpha_bar[t - 1]) / (1 - alpha_bar[t])
    nats = factor * (eps - wrong).square().mean(1) + 0.5 * (ratio - 1 - ratio.log())
    found = step_term(denoised, x0, x_t, now, to, "beta")
    torch.testing.assert_close(found, nats / math.log(2), rtol=1e-9, atol=0)


def test_more_steps_tighten_the_bound():
    def steps(n):
        levels = LINEAR.grid(n)
        terms = bound(ORACLE, levels, X0, GaussHermite(0, torch.arange(9)), "posterior")
        return mean(terms.steps.sum(1))

    assert steps(200) < steps(50) < steps(10)


@pytest.mark.parametrize(("fraction", "kind"), [(0.0, "posterior"), (1.0, "beta")])
def test_learned_variance_at_its_ends_is_one_of_the_fixed_ones(fraction, kind):
    levels = LINEAR.grid(20)
    noise = Noise(0, torch.arange(9))

    def learned(x, t):
        denoised = ORACLE(x, t)
        return Denoised(denoised.x0, denoised.eps, torch.full_like(x, fraction))

    found, expected = (
        bound(learned, levels, X0, noise, "learned"),
        bound(ORACLE, levels, X0, noise, kind),
    )
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
    t, s = levels[3], levels[4]
    torch.testing.assert_close(
        reverse_variance("learned", t, s, torch.tensor([[fraction]], dtype=torch.float64))[0, 0],
        reverse_variance(kind, t, s),
    )


def test_the_decoders_variances_are_the_published_ones():
    """σ_1² = β_1, and β̃_2 in place of β̃_1 = 0."""
    second, first = LINEAR.level(torch.tensor(1)), LINEAR.level(torch.tensor(0))
    alpha_bar, beta = LINEAR.alphas_cumprod, LINEAR.betas
    assert float(decoder_variance("beta", second, first)) == pytest.approx(1e-4, rel=1e-9)
    clipped = (1 - alpha_bar[0]) / (1 - alpha_bar[1]) * beta[1]
    found = float(decoder_variance("posterior", second, first))
    assert found == pytest.approx(float(clipped), rel=1e-9)


def test_what_a_bound_cannot_do_is_said():
    noise = Noise(0, torch.arange(9))
    with pytest.raises(ValueError, match="at least two steps"):
        bound(ORACLE, LINEAR.grid(1), X0, noise)
    with pytest.raises(ValueError, match="learned_variance=true"):
        bound(ORACLE, LINEAR.grid(5), X0, noise, "learned")
    with pytest.raises(ValueError, match="learned_variance=true"):
        decoder_variance("learned", *LINEAR.grid(2)[:2])


def test_normal_kl_is_the_integral():
    """Of q·ln(q/p) on a fine grid, and 0 for equals."""
    q, p = torch.distributions.Normal(0.3, 0.5), torch.distributions.Normal(-0.2, 0.8)
    x = torch.linspace(-8, 8, 100_001, dtype=torch.float64)
    integrand = q.log_prob(x).exp() * (q.log_prob(x) - p.log_prob(x))
    found = normal_kl(
        Gaussian(torch.tensor(0.3), torch.tensor(0.25)),
        Gaussian(torch.tensor(-0.2), torch.tensor(0.64)),
    )
    assert float(found) == pytest.approx(float(torch.trapezoid(integrand, x)), abs=1e-6)
    assert float(normal_kl(Gaussian(x, x**2 + 1), Gaussian(x, x**2 + 1)).abs().max()) == 0


@pytest.mark.parametrize("mean_", [-7.0, -1.0, -0.3, 0.001, 0.7, 1.0, 30.0])
@pytest.mark.parametrize("std", [1e-3, 0.01, 0.5, 40.0])
def test_the_masses_of_256_levels_sum_to_one(mean_, std):
    x0 = (torch.arange(256, dtype=torch.float64) / 127.5 - 1)[:, None]
    p = Gaussian(torch.tensor(mean_).double(), torch.tensor(std**2).double())
    masses = pixel_log_likelihood(x0, p)
    assert bool(masses.isfinite().all())
    assert float(masses.exp().sum()) == pytest.approx(1, abs=1e-12)


def test_far_tails_of_the_decoder_keep_their_logarithm_and_gradient():
    """200 standard deviations off: ln mass is about −b²/2, and pulls the mean that way."""
    m = torch.tensor([[0.0]], dtype=torch.float64, requires_grad=True)
    x0 = torch.tensor([[-2 / 3], [2 / 3], [-1.0], [1.0]], dtype=torch.float64)
    masses = pixel_log_likelihood(x0, Gaussian(m, torch.tensor(1e-5).double()))
    b = (x0.abs() - 1 / 255) / 1e-5**0.5
    torch.testing.assert_close(masses, -(b**2) / 2, rtol=1e-2, atol=0)
    slopes = torch.stack([torch.autograd.grad(mass, m, retain_graph=True)[0] for mass in masses])
    assert slopes.sign().flatten().tolist() == [-1, 1, -1, 1]
    assert bool(slopes.isfinite().all())
