"""The encoder and the decoder of a variational autoencoder.

Shapes: B batch, C channels, H × W pixels, Z latent numbers, D width of the condition vector.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from unnoise.config.numbers import Count
from unnoise.networks.adversarial import Encoder, Generator
from unnoise.networks.autoencoders.kl import LOGVAR, Posterior
from unnoise.networks.conditioning import UNCONDITIONAL, ConditionShape


class VariationalNetwork(nn.Module):
    """Signals to a normal posterior of a latent (B, Z), and latents to the decoder's outputs.

    Both are those of the small GAN: its discriminator's trunk, and its generator.

    Args:
        shape: (C, H, W).
        outputs: channels of the decoder's output.
        condition: a vector at most, which both see.
        latent: Z.
        channels: width at full resolution; each halving of H and W doubles it.
        scales: how often H and W are halved.

    Raises:
        ValueError: H or W cannot be halved so often, or the condition has tokens or a picture.
    """

    def __init__(
        self,
        shape: Sequence[Count],
        outputs: Count,
        condition: ConditionShape = UNCONDITIONAL,
        latent: Count = 64,
        channels: Count = 32,
        scales: Count = 2,
    ) -> None:
        super().__init__()
        self.shape, self.outputs, self.latent = tuple(shape), outputs, latent
        self.encoder = Encoder(shape, 2 * latent, channels, scales, condition)
        self.decoder = Generator(shape, latent, channels, scales, condition, outputs)

    def posterior(self, x: Tensor, vector: Tensor | None = None) -> Posterior:
        """q(z | x) of signals (B, C, H, W): mean, and ln variance between −30 and 20, (B, Z)."""
        mean, logvar = self.encoder(x, vector).float().chunk(2, dim=1)
        return Posterior(mean, logvar.clamp(*LOGVAR))

    def forward(self, z: Tensor, vector: Tensor | None = None) -> Tensor:
        """(B, Z), and the condition (B, D) if there is one, to (B, outputs, H, W)."""
        out: Tensor = self.decoder(z, vector)
        return out

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Encoder and decoder."""
        self.encoder.compile(*args, **kwargs)
        self.decoder.compile(*args, **kwargs)
