"""A generative adversarial network: the generator as a model, and its losses.

Source: Huang et al. 2024, "The GAN is dead; long live the GAN!" (R3GAN).
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from unnoise.models.codec import PixelCodec
from unnoise.models.latent import LatentModel
from unnoise.networks.adversarial import Generator
from unnoise.networks.conditioning import Conditioner

Pairing = Literal["relativistic", "plain"]


class GAN(LatentModel):
    """A generator of pictures from latents z ~ N(0, I), under a condition if it has a vector."""

    networks: ClassVar[dict[str, str]] = {"network": "generator.", "conditioning": "conditioner."}

    def __init__(self, generator: Generator, conditioner: Conditioner | None = None) -> None:
        super().__init__()
        self.generator, self.conditioner = generator, conditioner
        self.codec, self.latent_shape = PixelCodec(generator.shape), (generator.latent,)

    @classmethod
    def of(cls, parts: Mapping[str, Any], shape: tuple[int, ...]) -> Self:
        """From the networks; ValueError if the generator makes pictures of another shape."""
        if parts["network"].shape != shape:
            raise ValueError(f"the generator is for {parts['network'].shape}, not for {shape}")
        return cls(parts["network"], parts["conditioning"])

    def generate(self, z: Tensor, vector: Tensor | None = None) -> Tensor:
        """(B, Z) to signals (B, C, H, W) in about [−1, 1]."""
        signal: Tensor = self.generator(z, vector)
        return signal


def relativistic(ahead: Tensor, behind: Tensor) -> Tensor:
    """softplus(−(ahead − behind)) of each pair of scores: ln 2 where they are equal.

    The discriminator's loss has real scores ahead of generated ones, the generator's the reverse
    (eq. 2; Jolicoeur-Martineau 2019).
    """
    return F.softplus(behind - ahead)


def discriminator_loss(pairing: Pairing, real: Tensor, fake: Tensor) -> Tensor:
    """What D makes small of each pair of scores.

    Relativistic, see there; plain is −ln σ(real) − ln(1 − σ(fake)) (Goodfellow et al. 2014).
    """
    if pairing == "relativistic":
        return relativistic(real, fake)
    nothing = torch.zeros_like(real)
    return relativistic(real, nothing) + relativistic(nothing, fake)


def generator_loss(pairing: Pairing, fake: Tensor, real: Tensor) -> Tensor:
    """What the generator makes small; plain is the non-saturating −ln σ(fake)."""
    return relativistic(fake, real if pairing == "relativistic" else torch.zeros_like(fake))


def gradient_penalty(scores: Tensor, x: Tensor, gamma: float) -> Tensor:
    """γ/2·|∇_x D(x)|² of each sample: R1 on real ones, R2 on generated ones (eq. 3)."""
    (gradient,) = torch.autograd.grad(scores.sum(), x, create_graph=True)
    return gamma / 2 * gradient.flatten(1).square().sum(1)
