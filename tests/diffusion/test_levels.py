"""Identities of the forward process and its posterior (float64)."""

import pytest
import torch

from unnoise.diffusion import schedules
from unnoise.diffusion.levels import (
    CLEAN,
    diffuse,
    forward_step,
    posterior,
    posterior_variance,
    transition,
)


@pytest.fixture(params=["linear", "quadratic", "constant", "cosine", "sigmoid"])
def schedule(request):
    return getattr(schedules, request.param)()


def pictures(n=4):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(n, 3, 5, 5, dtype=torch.float64, generator=generator) for _ in range(2)]


def test_one_step_is_the_papers_chain(schedule):
    for t in (1, 500, 999):
        scale, variance = transition(
            schedule.level(torch.tensor(t - 1)), schedule.level(torch.tensor(t))
        )
        beta = schedule.betas[t]
        torch.testing.assert_close(scale, (1 - beta).sqrt(), rtol=1e-12, atol=0)
        torch.testing.assert_close(variance, beta, rtol=1e-9, atol=0)


def test_chain_composes_to_the_closed_form(schedule):
    """q(x_t|x_{t-1}) applied t times has the mean and variance of q(x_t|x_0), to 1e-12."""
    mean, variance, before = torch.ones(1, dtype=torch.float64), 0.0, CLEAN
    for t in range(schedule.T):
        level = schedule.level(torch.tensor(t))
        scale, added = transition(before, level)
        mean = forward_step(mean, before, level).mean
        variance, before = scale**2 * variance + added, level
        torch.testing.assert_close(mean[0], level.alpha, rtol=0, atol=1e-12)
        torch.testing.assert_close(variance, level.sigma**2, rtol=0, atol=1e-12)


def test_posterior_mean_in_x0_form_is_the_papers_eps_form(schedule):
    x0, eps = pictures()
    for t in (1, 10, 500, 998):
        now, to = schedule.level(torch.tensor(t)), schedule.level(torch.tensor(t - 1))
        x_t = diffuse(x0, eps, now)
        beta, alpha_bar = schedule.betas[t], schedule.alphas_cumprod[t]
        eps_form = (x_t - beta / (1 - alpha_bar).sqrt() * eps) / (1 - beta).sqrt()
        torch.testing.assert_close(posterior(x0, x_t, now, to).mean, eps_form, rtol=0, atol=1e-10)


def test_posterior_is_bayes_rule(schedule):
    """log q(x_s|x_t,x0) − log q(x_t|x_s) − log q(x_s|x0) does not depend on x_s."""
    x0, eps = pictures()
    s, t = schedule.level(torch.tensor(100)), schedule.level(torch.tensor(400))
    x_t = diffuse(x0, eps, t)
    target = posterior(x0, x_t, t, s)

    def log_density(x, mean, variance):
        return -((x - mean) ** 2) / (2 * variance)

    def remainder(x_s):
        forward = forward_step(x_s, s, t)
        return (
            log_density(x_s, target.mean, target.variance)
            - log_density(x_t, forward.mean, forward.variance)
            - log_density(x_s, s.alpha * x0, s.sigma**2)
        )

    torch.testing.assert_close(remainder(x0), remainder(eps), rtol=1e-9, atol=1e-9)


def test_posterior_variance_is_beta_tilde(schedule):
    t = 700
    now, to = schedule.level(torch.tensor(t)), schedule.level(torch.tensor(t - 1))
    alpha_bar = schedule.alphas_cumprod
    expected = (1 - alpha_bar[t - 1]) / (1 - alpha_bar[t]) * schedule.betas[t]
    torch.testing.assert_close(posterior_variance(now, to), expected, rtol=1e-9, atol=0)
    assert posterior_variance(now, CLEAN) == 0


def test_posterior_towards_clean_is_the_picture(schedule):
    x0, eps = pictures()
    now = schedule.level(torch.tensor(0))
    result = posterior(x0, diffuse(x0, eps, now), now, CLEAN)
    torch.testing.assert_close(result.mean, x0, rtol=1e-12, atol=1e-12)
    assert result.variance == 0
