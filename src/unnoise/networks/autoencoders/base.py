"""What a latent model knows of an autoencoder: pictures to latents and back."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from unnoise.diffusion.noise import Noise


class Autoencoder(nn.Module, ABC):
    """Signals (B, C, H, W) in [−1, 1] to latents (B, D, h, w) and back.

    Encoding has two steps: the ``moments`` of a latent, which are a function of the picture and can
    be kept, and the latent ``drawn`` from them. Where no latent is random they are the latent.

    ``bounded``: latents lie in [−1, 1], too; ``scaled``: they are of any size, so that diffusion
    wants each channel brought to mean 0 and variance 1.
    """

    bounded: bool = False
    scaled: ClassVar[bool] = False

    @abstractmethod
    def latent_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Of the latent of one signal of ``shape``; ValueError if it cannot be encoded."""

    @abstractmethod
    def moments(self, x: Tensor) -> Tensor:
        """All that it takes to draw latents of x: (B, K, h, w) float32."""

    def drawn(self, moments: Tensor, noise: Noise | None = None) -> Tensor:
        """The latent; where it is random, drawn by ``noise``, or its mean without."""
        return moments

    def spread(self, moments: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of each latent, both (B, D, h, w)."""
        return moments, moments.new_zeros(()).expand_as(moments)

    def encode(self, x: Tensor, noise: Noise | None = None) -> Tensor:
        """The latent of x; see ``drawn``."""
        return self.drawn(self.moments(x), noise)

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """The signal."""


@dataclass(frozen=True)
class Reconstruction:
    """Draws by encoding and decoding pictures; the latent is its mean unless it is ``drawn``."""

    drawn: bool = False


class Identity(Autoencoder):
    """The latent is the picture, so that a latent run must equal the pixel run."""

    bounded = True

    def latent_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The same."""
        return tuple(shape)

    def moments(self, x: Tensor) -> Tensor:
        """The same."""
        return x

    def decode(self, z: Tensor) -> Tensor:
        """The same."""
        return z
