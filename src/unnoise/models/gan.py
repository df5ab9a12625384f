"""A generative adversarial network: the generator as a model, and its losses.

Source: Huang et al. 2024, "The GAN is dead; long live the GAN!" (R3GAN).
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from unnoise.diffusion.levels import CLEAN
from unnoise.diffusion.noise import Noise
from unnoise.diffusion.samplers import Watch
from unnoise.models.base import GenerativeModel
from unnoise.models.codec import PixelCodec
from unnoise.networks.adversarial import Generator, LatentSampler


class GAN(GenerativeModel):
    """A generator of pictures from latents z ~ N(0, I); unconditional."""

    networks: ClassVar[dict[str, str]] = {"network": "generator."}

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator, self.conditioner = generator, None
        self.codec = PixelCodec(generator.shape)

    @classmethod
    def of(cls, parts: Mapping[str, Any], shape: tuple[int, ...]) -> Self:
        """From the network; ValueError if it makes pictures of another shape."""
        if parts["network"].shape != shape:
            raise ValueError(f"the generator is for {parts['network'].shape}, not for {shape}")
        return cls(parts["network"])

    def generate(self, noise: Noise, scale: float = 1.0) -> Tensor:
        """One signal for each id of ``noise``, (B, C, H, W) in about [−1, 1]."""
        signal: Tensor = self.generator(scale * noise.normal("z", (self.generator.latent,)))
        return signal

    @torch.inference_mode()
    def sample(
        self,
        recipe: LatentSampler,
        noise: Noise,
        batch: Mapping[str, Any] | None = None,
        watch: Watch | None = None,
    ) -> Tensor:
        """One picture for each id of ``noise``, in one call; ValueError for another recipe."""
        self.check_recipe(recipe)
        signal = self.generate(noise, recipe.scale)
        if watch is not None:
            watch(signal, CLEAN)
        return self.codec.decode(signal)

    def check_recipe(self, recipe: LatentSampler) -> None:
        """ValueError if it is not a generator's."""
        if not isinstance(recipe, LatentSampler):
            raise ValueError(f"a GAN draws with sampler=latent, not with {type(recipe).__name__}")


def relativistic(ahead: Tensor, behind: Tensor) -> Tensor:
    """softplus(−(ahead − behind)) of each pair of scores: ln 2 where they are equal.

    The discriminator's loss has real scores ahead of generated ones, the generator's the reverse
    (eq. 2; Jolicoeur-Martineau 2019).
    """
    return F.softplus(behind - ahead)


def gradient_penalty(scores: Tensor, x: Tensor, gamma: float) -> Tensor:
    """γ/2·|∇_x D(x)|² of each sample: R1 on real ones, R2 on generated ones (eq. 3)."""
    (gradient,) = torch.autograd.grad(scores.sum(), x, create_graph=True)
    return gamma / 2 * gradient.flatten(1).square().sum(1)
