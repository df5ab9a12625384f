"""The autoencoder whose latent is made of codes, from a codebook or by rounding.

Sources: van den Oord et al. 2017 (VQ-VAE); Esser et al. 2021 (VQGAN); Mentzer et al. 2023 (FSQ).
"""

from collections.abc import Sequence

from torch import Tensor

from unnoise.config.numbers import Count
from unnoise.diffusion.noise import Noise
from unnoise.networks.autoencoders.convolutional import ConvolutionalAutoencoder, Latent
from unnoise.networks.autoencoders.quantizers import Quantizer
from unnoise.networks.conditioning.base import Width


class VQAutoencoder(ConvolutionalAutoencoder):
    """Pictures to codes, one at each place of the latent, and back.

    The latent is what the codes stand for, D numbers a place as the ``quantizer`` wants them. It is
    a function of the picture: noise makes no difference. For the other arguments see
    ``ConvolutionalAutoencoder``.
    """

    def __init__(
        self,
        colours: Count,
        quantizer: Quantizer,
        channels: Count = 128,
        multipliers: Sequence[Count] = (1, 2, 4),
        blocks: Count = 2,
        attention_levels: Width = 0,
        norm_groups: Count = 32,
        patch: Count = 1,
    ) -> None:
        shape = channels, multipliers, blocks, attention_levels, norm_groups, patch
        super().__init__(colours, quantizer.width, quantizer.width, *shape)
        self.quantizer, self.bounded = quantizer, quantizer.bounded

    def latent(self, x: Tensor, noise: Noise | None = None) -> Latent:
        """The nearest codes."""
        found: Latent = self.quantizer(self.quant(self.encoder(x)))
        return found

    def moments(self, x: Tensor) -> Tensor:
        """What the nearest codes stand for."""
        codes = self.latent(x).codes
        assert codes is not None
        return self.quantizer.vectors_of(codes)
