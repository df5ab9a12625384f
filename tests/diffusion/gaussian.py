"""What tests of the mathematics share, beside the oracles of unnoise.diffusion.oracle."""

import torch

from unnoise.diffusion import schedules
from unnoise.diffusion.denoiser import Denoised
from unnoise.diffusion.levels import match
from unnoise.diffusion.schedules import EDMSchedule, RectifiedFlow

SCHEDULES = [
    schedules.linear(),
    schedules.cosine(),
    schedules.zero_terminal_snr(schedules.linear()),
    RectifiedFlow(),
    EDMSchedule(),
]
"""One of each family."""


class GaussianMixtureOracle:
    """Denoise for x0 ~ Σ_k weight_k·N(mean_k, s²)."""

    def __init__(self, means=(-0.6, 0.5), weights=(0.3, 0.7), s=0.15):
        self.means = torch.tensor(means, dtype=torch.float64)
        self.weights = torch.tensor(weights, dtype=torch.float64)
        self.s = s
        self.mu = (self.weights @ self.means).item()
        self.variance = (self.weights @ self.means**2).item() - self.mu**2 + s**2

    def __call__(self, x, level):
        alpha, sigma = (match(value, x) for value in (level.alpha, level.sigma))
        v = alpha**2 * self.s**2 + sigma**2
        means = self.means.to(x)
        off = x[..., None] - alpha[..., None] * means
        share = (self.weights.to(x).log() - off**2 / (2 * v[..., None])).softmax(-1)
        eps = sigma / v * (share * off).sum(-1)
        x0 = (alpha * self.s**2 * x + sigma**2 * (share * means).sum(-1)) / v
        return Denoised(x0, eps)


def exact_divergence(f, x):
    """Σ_i ∂f_i/∂x_i of each sample: a backward pass for every dimension."""
    slopes = (
        torch.autograd.grad(f_i.sum(), x, retain_graph=True)[0].flatten(1)[:, i]
        for i, f_i in enumerate(f.flatten(1).unbind(1))
    )
    return sum(slopes)


def affine(step):
    """Slope and offset of a function that is affine in x, in float64."""
    at = step(torch.tensor([[0.0], [1.0]], dtype=torch.float64))
    return (at[1] - at[0]).item(), at[0].item()
