"""What a latent model knows of an autoencoder: pictures to latents and back."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn

from unnoise.diffusion.noise import Noise


class Autoencoder(nn.Module, ABC):
    """Signals (B, C, H, W) in [−1, 1] to latents and back; ``bounded``: these lie there, too."""

    bounded: bool = False

    @abstractmethod
    def latent_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Of the latent of one signal of ``shape``; ValueError if it cannot be encoded."""

    @abstractmethod
    def encode(self, x: Tensor, noise: Noise | None = None) -> Tensor:
        """The latent; where it is random, drawn by ``noise``, or its mean without."""

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

    def encode(self, x: Tensor, noise: Noise | None = None) -> Tensor:
        """The same."""
        return x

    def decode(self, z: Tensor) -> Tensor:
        """The same."""
        return z
