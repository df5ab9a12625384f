"""Noise levels: x_t = alpha·x0 + sigma·eps, and the Gaussians that join two of them.

Everything follows from (alpha, sigma) of the two levels, for any schedule; variance preserving
ones have alpha_t² = ᾱ_t and sigma_t² = 1 − ᾱ_t. Below, s is the cleaner of two levels s < t.
"""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

Variance = Literal["beta", "posterior", "learned"]
"""The variance of a reverse step: β, β̃, or one between them that the network predicts."""


class NoiseLevel(NamedTuple):
    """How noisy samples are: one level for each of B, or one for all.

    ``t`` is the network's time input. All three are () or (B,); ``alpha`` and ``sigma`` are
    float64, or float32 on a device without float64 (MPS).
    """

    t: Tensor
    alpha: Tensor
    sigma: Tensor

    @property
    def log_snr(self) -> Tensor:
        """ln(alpha²/sigma²): +inf for clean samples, −inf for pure noise."""
        return 2 * (self.alpha.log() - self.sigma.log())

    def like(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(alpha, sigma) in the dtype of x (B, …), shaped to be multiplied with it."""
        return match(self.alpha, x), match(self.sigma, x)


CLEAN = NoiseLevel(
    t=torch.tensor(-1.0),
    alpha=torch.tensor(1.0, dtype=torch.float64),
    sigma=torch.tensor(0.0, dtype=torch.float64),
)


class Gaussian(NamedTuple):
    """N(mean, variance·I); mean has the shape of x, variance one that broadcasts with it."""

    mean: Tensor
    variance: Tensor


def match(value: Tensor, x: Tensor) -> Tensor:
    """One number for each sample, (B,), or for all, (), shaped to be multiplied with x (B, …)."""
    value = value.to(x)
    return value.reshape(-1, *[1] * (x.ndim - 1)) if value.ndim else value


def diffuse(
    x0: Float[Tensor, "B *shape"], eps: Float[Tensor, "B *shape"], level: NoiseLevel
) -> Float[Tensor, "B *shape"]:
    """The closed form of the forward process (DDPM eq. 4): x_t = alpha·x0 + sigma·eps."""
    alpha, sigma = level.like(x0)
    return alpha * x0 + sigma * eps


def transition(s: NoiseLevel, t: NoiseLevel) -> tuple[Tensor, Tensor]:
    """One forward step q(x_t | x_s) = N(scale·x_s, variance·I): (scale, variance), float64.

    scale = alpha_t/alpha_s, variance = sigma_t² − scale²·sigma_s² = −sigma_t²·expm1(λ_t − λ_s) with
    λ = ln SNR (Kingma et al. 2021, "Variational diffusion models", eq. 20). From one DDPM level to
    the next these are √(1 − β_t) and β_t.
    """
    return t.alpha / s.alpha, -(t.sigma**2) * torch.expm1(t.log_snr - s.log_snr)


def forward_step(x_s: Tensor, s: NoiseLevel, t: NoiseLevel) -> Gaussian:
    """q(x_t | x_s), the Markov chain that adds noise (DDPM eq. 2)."""
    scale, variance = transition(s, t)
    return Gaussian(match(scale, x_s) * x_s, match(variance, x_s))


def posterior_variance(t: NoiseLevel, s: NoiseLevel) -> Tensor:
    """β̃ (DDPM eq. 7), the variance of q(x_s | x_t, x0): (sigma_s²/sigma_t²)·variance(x_t | x_s)."""
    return (s.sigma / t.sigma) ** 2 * transition(s, t)[1]


def posterior(x0: Tensor, x_t: Tensor, t: NoiseLevel, s: NoiseLevel) -> Gaussian:
    """q(x_s | x_t, x0), the target of the reverse process (DDPM eq. 6 and 7).

    mean = (alpha_s·v/sigma_t²)·x0 + (scale·sigma_s²/sigma_t²)·x_t, (scale, v) = transition(s, t).
    """
    scale, variance = transition(s, t)
    on_x0 = s.alpha * variance / t.sigma**2
    on_x_t = scale * (s.sigma / t.sigma) ** 2
    mean = match(on_x0, x0) * x0 + match(on_x_t, x0) * x_t
    return Gaussian(mean, match(posterior_variance(t, s), x0))


def reverse_variance(
    kind: Variance, t: NoiseLevel, s: NoiseLevel, fraction: Tensor | None = None
) -> Tensor:
    """The variance of p(x_s | x_t): β, β̃, or a learned one; see ``chosen_variance``."""
    return chosen_variance(kind, transition(s, t)[1], posterior_variance(t, s), fraction)


def chosen_variance(
    kind: Variance, beta: Tensor, beta_tilde: Tensor, fraction: Tensor | None
) -> Tensor:
    """β, β̃, or exp(fraction·ln β + (1 − fraction)·ln β̃).

    The last is the learned variance (Nichol & Dhariwal 2021, eq. 15), in the shape of ``fraction``
    (B, …). The others are float64, in the shape of the levels.

    Raises:
        ValueError: "learned" without a fraction.
    """
    if kind == "beta":
        return beta
    if kind == "posterior":
        return beta_tilde
    if fraction is None:
        raise ValueError(
            "the variance is set to learned, but the model was trained without "
            "learned_variance=true: use beta or posterior"
        )
    top, bottom = match(beta.log(), fraction), match(beta_tilde.log(), fraction)
    return torch.lerp(bottom, top, fraction).exp()
