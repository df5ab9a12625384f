"""The autoencoder with a Gaussian posterior: a latent of real numbers near N(0, 1).

Sources: Kingma & Welling 2014; Rombach et al. 2022, §3.1 ("KL-reg.").
"""

from collections.abc import Sequence
from typing import Annotated, ClassVar, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from unnoise.config.numbers import Count
from unnoise.diffusion.noise import Noise
from unnoise.networks.autoencoders.convolutional import ConvolutionalAutoencoder, Latent
from unnoise.networks.conditioning.base import Width

LOGVAR = -30.0, 20.0  # bounds, as in latent diffusion


class Posterior(NamedTuple):
    """N(mean, exp(logvar)) of each element, both (B, D, h, w) float32."""

    mean: Tensor
    logvar: Tensor

    def draw(self, noise: Noise) -> Tensor:
        """mean + exp(logvar / 2)·ε, ε a function of the picture's id."""
        eps = noise.normal("posterior", self.mean.shape[1:])
        return self.mean + (0.5 * self.logvar).exp() * eps

    @property
    def kl(self) -> Tensor:
        """Σ ½(μ² + σ² − 1 − ln σ²): the divergence to N(0, I) of each picture, (B,) nats."""
        each = self.mean.square() + self.logvar.exp() - 1 - self.logvar
        return 0.5 * each.flatten(1).sum(1)


class KLAutoencoder(ConvolutionalAutoencoder):
    """Pictures to N(mean, variance) of each element of the latent, and back.

    The first half of the encoder's channels is the mean, the second ln variance, held between −30
    and 20. For the arguments see ``ConvolutionalAutoencoder``; these are those of Stable Diffusion.
    ``kl_weight`` is what a nat costs in training.
    """

    scaled: ClassVar[bool] = True

    def __init__(
        self,
        colours: Count,
        latent: Count = 4,
        channels: Count = 128,
        multipliers: Sequence[Count] = (1, 2, 4, 4),
        blocks: Count = 2,
        attention_levels: Width = 0,
        norm_groups: Count = 32,
        kl_weight: Annotated[float, Field(ge=0)] = 1e-6,
        patch: Count = 1,
    ) -> None:
        shape = channels, multipliers, blocks, attention_levels, norm_groups, patch
        super().__init__(colours, latent, 2 * latent, *shape)
        self.kl_weight = kl_weight

    def posterior(self, x: Tensor) -> Posterior:
        """Of the latent of pictures (B, C, H, W)."""
        mean, logvar = self.quant(self.encoder(x)).float().chunk(2, dim=1)
        return Posterior(mean, logvar.clamp(*LOGVAR))

    def latent(self, x: Tensor, noise: Noise | None = None) -> Latent:
        """Drawn from the posterior, or without ``noise`` its mean; the penalty is its KL's."""
        found = self.posterior(x)
        z = found.mean if noise is None else found.draw(noise)
        return Latent(z, self.kl_weight * found.kl, found.mean, kl=found.kl)

    def moments(self, x: Tensor) -> Tensor:
        """Mean and ln variance, one above the other: (B, 2·D, h, w)."""
        return torch.cat(self.posterior(x), dim=1)

    def drawn(self, moments: Tensor, noise: Noise | None = None) -> Tensor:
        """Drawn from the posterior, or without ``noise`` its mean."""
        found = Posterior(*moments.chunk(2, dim=1))
        return found.mean if noise is None else found.draw(noise)

    def spread(self, moments: Tensor) -> tuple[Tensor, Tensor]:
        """Those of the posterior."""
        mean, logvar = moments.chunk(2, dim=1)
        return mean, logvar.exp()
