"""Between data and the signal that a model works on: pixels, or a latent."""

from abc import ABC, abstractmethod
from typing import Self

import torch
from torch import Tensor, nn

from unnoise.data.pixels import to_pixels, to_signal
from unnoise.diffusion.noise import Noise
from unnoise.networks.autoencoders import Autoencoder, Identity


class Codec(nn.Module, ABC):
    """Data (B, *data_shape) to a signal (B, *shape), and back.

    ``bounded`` says whether signals lie in [−1, 1], so that estimates of x0 can be clipped to it;
    ``is_pixels`` whether they are the pixels themselves, as a likelihood of pictures needs.
    """

    data_shape: tuple[int, ...]
    shape: tuple[int, ...]
    bounded: bool
    is_pixels: bool

    @abstractmethod
    def encode(self, data: Tensor, noise: Noise | None = None) -> Tensor:
        """The signal, float32; where it is random, drawn by ``noise``, or its mean without."""

    @abstractmethod
    def decode(self, signal: Tensor) -> Tensor:
        """The data; what exceeds their range is clamped."""


class PixelCodec(Codec):
    """uint8 0 … 255 as −1 … 1: the signal is the picture."""

    bounded = is_pixels = True

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.data_shape = self.shape = tuple(shape)

    def encode(self, data: Tensor, noise: Noise | None = None) -> Tensor:
        """x/127.5 − 1."""
        return to_signal(data)

    def decode(self, signal: Tensor) -> Tensor:
        """Clamped and rounded to the nearest."""
        return to_pixels(signal)


class LatentCodec(Codec):
    """A latent of the picture by an autoencoder (Rombach et al. 2022, "latent diffusion")."""

    def __init__(self, autoencoder: Autoencoder, data_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.autoencoder, self.pixels = autoencoder, PixelCodec(data_shape)
        self.data_shape, self.shape = tuple(data_shape), autoencoder.latent_shape(data_shape)
        self.bounded, self.is_pixels = autoencoder.bounded, isinstance(autoencoder, Identity)
        self.requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """The autoencoder is frozen: it stays in evaluation mode."""
        return super().train(False)

    def encode(self, data: Tensor, noise: Noise | None = None) -> Tensor:
        """The latent of the pixels as −1 … 1."""
        with torch.no_grad():
            return self.autoencoder.encode(self.pixels.encode(data), noise)

    def decode(self, signal: Tensor) -> Tensor:
        """The decoded pixels."""
        return self.pixels.decode(self.autoencoder.decode(signal))


def codec_of(autoencoder: Autoencoder | None, data_shape: tuple[int, ...]) -> Codec:
    """Pixels where there is no autoencoder."""
    return LatentCodec(autoencoder, data_shape) if autoencoder else PixelCodec(data_shape)
