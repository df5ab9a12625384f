"""Likelihood: the variational bound and its terms, and the density by the probability-flow ODE.

In bits per dimension (bits/dim), of x0 of any shape. ``decoder_term``, with it ``bound``, and
``ode_bits_per_dim`` are for pixels: 256 levels in [−1, 1], 2/255 apart. Densities and variances are
computed in float64, as they span many orders of magnitude at low noise.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from unnoise.diffusion.denoiser import Denoise, Denoised
from unnoise.diffusion.levels import (
    CLEAN,
    Gaussian,
    NoiseLevel,
    Variance,
    chosen_variance,
    diffuse,
    match,
    posterior,
    posterior_variance,
    reverse_variance,
    transition,
)
from unnoise.diffusion.noise import Noise
from unnoise.diffusion.schedules import LEAST_LOG_SNR, NoiseSchedule, precise

HALF_A_LEVEL = 1 / 255
BEYOND = 40  # standard deviations: replaces ∞ at the outermost levels, with finite gradients


class Bound(NamedTuple):
    """The terms of the upper bound of −ln p(x0), in bits/dim for each sample (DDPM eq. 5).

    ``prior`` (B,) is L_T; ``steps`` (B, T−1) are L_{t−1}, noisiest first; ``decoder`` (B,) is L_0.
    """

    prior: Tensor
    steps: Tensor
    decoder: Tensor

    @property
    def total(self) -> Tensor:
        """L (B,)."""
        return self.prior + self.steps.sum(1) + self.decoder


def bound(
    denoise: Denoise,
    levels: Sequence[NoiseLevel],
    x0: Float[Tensor, "B *shape"],
    noise: Noise,
    variance: Variance = "beta",
) -> Bound:
    """The variational bound for pixels of ancestral sampling over ``levels`` (down to CLEAN).

    Each term is estimated from one x_t for each sample; memory does not grow with the levels.

    Raises:
        ValueError: fewer than two noisy levels; "learned" without a learned variance.
    """
    if len(levels) < 3:
        raise ValueError("the bound needs a grid of at least two steps")
    steps = []
    for k, (t, s) in enumerate(pairwise(levels)):
        x_t = diffuse(x0, noise.normal("bound", x0.shape[1:], k).to(x0), t)
        denoised = denoise(x_t, t)
        if s.sigma > 0:
            steps.append(step_term(denoised, x0, x_t, t, s, variance))
        else:
            decoder = decoder_term(denoised, x0, levels[k - 1], t, variance)
    return Bound(prior_term(x0, levels[0]), torch.stack(steps, 1), decoder)


def prior_term(x0: Tensor, noisiest: NoiseLevel) -> Tensor:
    """L_T: KL of q(x_T | x0) from N(0, alpha_T² + sigma_T²), from which samplers start."""
    alpha, sigma = (match(value, precise(x0)) for value in (noisiest.alpha, noisiest.sigma))
    start = Gaussian(torch.zeros_like(alpha), alpha**2 + sigma**2)
    return bits_per_dim(normal_kl(Gaussian(alpha * precise(x0), sigma**2), start))


def step_term(
    denoised: Denoised, x0: Tensor, x_t: Tensor, t: NoiseLevel, s: NoiseLevel, variance: Variance
) -> Tensor:
    """L_{t−1}: KL of q(x_s | x_t, x0) from p(x_s | x_t), whose mean has x̂0 in place of x0."""
    x0_hat, _, fraction = _precise(denoised)
    target = posterior(precise(x0), precise(x_t), t, s)
    mean = posterior(x0_hat, precise(x_t), t, s).mean
    predicted = reverse_variance(variance, t, s, fraction)
    return bits_per_dim(normal_kl(target, Gaussian(mean, _matched(predicted, mean))))


def decoder_term(
    denoised: Denoised, x0: Tensor, second: NoiseLevel, first: NoiseLevel, variance: Variance
) -> Tensor:
    """L_0 of pixels: −ln p(x0 | x_1), mean x̂0, at ``first``; ``second`` is the next noisier."""
    x0_hat, _, fraction = _precise(denoised)
    predicted = decoder_variance(variance, second, first, fraction)
    p = Gaussian(x0_hat, _matched(predicted, x0_hat))
    return bits_per_dim(-pixel_log_likelihood(precise(x0), p))


def decoder_variance(
    kind: Variance, second: NoiseLevel, first: NoiseLevel, fraction: Tensor | None = None
) -> Tensor:
    """The variance of p(x0 | x_1): β_1, or β̃_2 since β̃_1 is 0, or the learned one between them.

    β̃_2 suits uniform grids; it is far too small for grids with tiny steps at low noise.

    Raises:
        ValueError: "learned" without a fraction.
    """
    beta, beta_tilde = transition(CLEAN, first)[1], posterior_variance(second, first)
    return chosen_variance(kind, beta, beta_tilde, fraction)


def normal_kl(q: Gaussian, p: Gaussian) -> Tensor:
    """KL(q ‖ p) of each element, in nats: ½·(ln v_p/v_q − 1 + (v_q + (m_q − m_p)²)/v_p)."""
    ratio = q.variance / p.variance
    return 0.5 * (ratio - 1 - ratio.log() + (q.mean - p.mean).square() / p.variance)


def pixel_log_likelihood(x0: Tensor, p: Gaussian) -> Tensor:
    """ln of the probability under p of the level of each pixel x0 (DDPM eq. 13), in nats."""
    return level_log_probability(x0, p.mean, p.variance.sqrt(), torch.special.log_ndtr)


def level_log_probability(
    x0: Tensor, mean: Tensor, scale: Tensor, log_cdf: Callable[[Tensor], Tensor]
) -> Tensor:
    """ln of the probability of the level of each pixel x0, in nats, by a symmetric distribution.

    ``log_cdf`` is ln F of (x − mean)/scale. Levels extend 1/255 to both sides, the outermost two to
    infinity. In float64 the tails are accurate at any distance: ln(F(b) − F(a)) = ln F(b) +
    ln(1 − F(a)/F(b)), computed for a < 0.
    """
    a, b = ((x0 + side - mean) / scale for side in (-HALF_A_LEVEL, HALF_A_LEVEL))
    a, b = (
        torch.where(x0 < -1 + HALF_A_LEVEL, -b.abs() - BEYOND, a),
        torch.where(x0 > 1 - HALF_A_LEVEL, a.abs() + BEYOND, b),
    )
    a, b = torch.where(a > 0, -b, a), torch.where(a > 0, -a, b)
    below, above = log_cdf(a), log_cdf(b)
    mass: Tensor = above + (-torch.expm1(below - above)).log()
    return mass


def bits_per_dim(nats: Tensor) -> Tensor:
    """Nats of each element (B, …) to bits per dimension (B,)."""
    return nats.flatten(1).mean(1) / math.log(2)


Divergence = Callable[[Tensor, Tensor], Tensor]
"""(f(x), x), both (B, …), to the trace of df/dx of each sample (B,), by autograd."""


def hutchinson(signs: Tensor) -> Divergence:
    """v·(df/dx)v with random v = ±1, whose mean is the trace (Hutchinson 1989): one pass."""

    def divergence(f: Tensor, x: Tensor) -> Tensor:
        slope = torch.autograd.grad((f * signs).sum(), x)[0]
        return (slope * signs).flatten(1).sum(1)

    return divergence


def ode_log_density(
    denoise: Denoise,
    schedule: NoiseSchedule,
    x: Float[Tensor, "B *shape"],
    divergence: Divergence,
    tolerance: float = 1e-5,
) -> Float[Tensor, " B"]:
    """ln of the density, in nats, of x = x_t/alpha_t at the cleanest level of the schedule.

    DDIM's ODE, y = x_t/alpha and dy/dσ̂ = ε with σ̂ = sigma/alpha, takes the samples to
    N(0, 1 + σ̂_T²); the density changes by d ln p(y)/dσ̂ = −div ε (Song et al. 2021, "Score-based
    generative modeling", eq. 39). Steps are in ln σ̂ by Dormand–Prince 5(4), of one size for the
    whole batch. ``denoise`` is differentiated, so it must not hold tensors of inference mode.
    """
    times = torch.tensor(schedule.ends, dtype=torch.float64)
    ends = -schedule.level(times).log_snr.clamp(min=LEAST_LOG_SNR).flip(0) / 2  # ln σ̂

    def slope(log_ratio: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        log_ratio = log_ratio.clamp(*ends)  # the solver's first trial may go beyond the ends
        level = schedule.level(schedule.time_at(-2 * log_ratio))
        with torch.inference_mode(False), torch.enable_grad():
            y = state[0].clone().requires_grad_()
            eps = precise(denoise((level.alpha * y).to(x), level).eps)
            trace = divergence(eps, y)
        ratio = log_ratio.exp()
        return ratio * eps.detach(), -ratio * trace.detach()

    with torch.inference_mode(False), torch.no_grad():
        start = precise(x).clone(), precise(x.new_zeros(len(x)))
        ends = ends.to(start[0])
        from torchdiffeq import odeint  # which imports SciPy

        y, gained = odeint(slope, start, ends, rtol=tolerance, atol=tolerance, method="dopri5")
        variance = 1 + (2 * ends[-1]).exp()
        base = -0.5 * (y[-1] ** 2 / variance + (2 * math.pi * variance).log())
        log_density: Tensor = base.flatten(1).sum(1) - gained[-1]
    return log_density


def ode_bits_per_dim(
    denoise: Denoise,
    schedule: NoiseSchedule,
    x0: Float[Tensor, "B *shape"],
    noise: Noise,
    tolerance: float = 1e-5,
) -> Float[Tensor, " B"]:
    """−log2 p of pixels on 256 levels, by ``ode_log_density`` with Hutchinson's trace, (B,).

    Pixels are dequantised uniformly, x0 + U(−1/255, 1/255), which gives an upper bound on average.
    """
    shape = x0.shape[1:]
    with torch.inference_mode(False), torch.no_grad():
        x = dequantised(x0, noise)
        signs = torch.where(noise.normal("hutchinson", shape) < 0, -1.0, 1.0).to(precise(x))
        density = ode_log_density(denoise, schedule, x, hutchinson(signs), tolerance)
    return -(density / x0[0].numel() + math.log(2 * HALF_A_LEVEL)) / math.log(2)


def dequantised(x0: Tensor, noise: Noise) -> Tensor:
    """Pixels x0 (B, …) with U(−1/255, 1/255) added, all over the width of their level."""
    place = 2 * torch.special.ndtr(noise.normal("dequantise", x0.shape[1:])) - 1
    x: Tensor = x0.clone() + HALF_A_LEVEL * place.to(x0)
    return x


def _precise(denoised: Denoised) -> Denoised:
    fraction = denoised.variance_fraction
    return Denoised(
        precise(denoised.x0), precise(denoised.eps), None if fraction is None else precise(fraction)
    )


def _matched(variance: Tensor, x: Tensor) -> Tensor:
    """A variance for all samples, for each sample or for each element of x (B, …)."""
    return variance if variance.ndim == x.ndim else match(variance, x)
