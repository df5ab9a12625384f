"""Changes that a latent should go through as its picture does: smaller, and turned.

Source: Kouzelis et al. 2025, "EQ-VAE: Equivariance Regularized Latent Space for Improved Generative
Image Modeling". A decoder that was trained on changed latents, too, makes the encoder say coarse
things coarsely, which a diffusion model then learns sooner.
"""

from typing import NamedTuple, Self

import torch.nn.functional as F
from torch import Tensor

from unnoise.diffusion.noise import Noise

SMALLEST = 0.25  # scale


def scaled(side: int, scale: float) -> int:
    """A side of the latent, in whole places; at least one."""
    return max(1, round(side * scale))


class Transform(NamedTuple):
    """Smaller by ``scale`` in [0.25, 1], then turned by ``turns`` right angles."""

    scale: float = 1.0
    turns: int = 0

    @classmethod
    def drawn(cls, noise: Noise, share: float) -> Self:
        """With probability ``share`` a scale in U[0.25, 1) and 0 … 3 turns, else the identity.

        A function of the first id of ``noise``.
        """
        whether, scale, turns = (float(noise.uniform("equivariance", k)[0]) for k in range(3))
        if whether >= share:
            return cls()
        return cls(SMALLEST + (1 - SMALLEST) * scale, int(4 * turns))

    def of(self, z: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Latents (B, D, h, w) and their signals (B, C, f·h, f·w), changed alike.

        To h' × w' places, the nearest to scale·h × scale·w, and f·h' × f·w' pixels, by antialiased
        bilinear interpolation. Where nothing is changed they are those given.
        """
        h, w = z.shape[-2:]
        sides = scaled(h, self.scale), scaled(w, self.scale)
        if sides != (h, w):
            by_h, by_w = x.shape[-2] // h, x.shape[-1] // w
            z = F.interpolate(z, sides, mode="bilinear", antialias=True)
            pixels = sides[0] * by_h, sides[1] * by_w
            x = F.interpolate(x, pixels, mode="bilinear", antialias=True)
        if self.turns % 4:
            z, x = z.rot90(self.turns, (-2, -1)), x.rot90(self.turns, (-2, -1))
        return z, x
