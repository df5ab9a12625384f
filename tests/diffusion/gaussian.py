"""The Gaussian oracle: for pictures of N(mu, s²) pixels the best guess is known in closed form."""

import torch

from unnoise.diffusion.denoiser import Denoised
from unnoise.diffusion.noise_level import match


class GaussianOracle:
    """Denoise for x0 ~ N(mu, s²): eps* = sigma·(x − alpha·mu)/v, v = alpha²s² + sigma²."""

    def __init__(self, mu=0.3, s=0.25):
        self.mu, self.s = mu, s

    def __call__(self, x, level):
        alpha, sigma = (match(value, x) for value in (level.alpha, level.sigma))
        v = alpha**2 * self.s**2 + sigma**2
        eps = sigma * (x - alpha * self.mu) / v
        x0 = (alpha * self.s**2 * x + sigma**2 * self.mu) / v
        return Denoised(x0, eps)

    def posterior_variance(self, level):
        """Var(x0 | x_t)."""
        return self.s**2 * level.sigma**2 / (level.alpha**2 * self.s**2 + level.sigma**2)


def affine(step):
    """Slope and offset of a function that is affine in x, in float64."""
    at = step(torch.tensor([[0.0], [1.0]], dtype=torch.float64))
    return (at[1] - at[0]).item(), at[0].item()
