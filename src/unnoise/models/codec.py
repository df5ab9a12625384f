"""Between data and the signal that a model works on: pixels, or a latent."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor, nn

from unnoise.data.pixels import to_pixels, to_signal
from unnoise.diffusion.noise import Noise
from unnoise.networks.autoencoders import Autoencoder, Identity, Trained

BLOCK = 8
"""Pictures that are encoded at a time, always: the last digits depend on how many there are."""


class Codec(nn.Module, ABC):
    """Data (B, *data_shape) to a signal (B, *shape), and back.

    ``bounded`` says whether signals lie in [−1, 1], so that estimates of x0 can be clipped to it;
    ``is_pixels`` whether they are the pixels themselves, as a likelihood of pictures needs;
    ``factor`` is how many pixels a place of the signal is wide.
    """

    data_shape: tuple[int, ...]
    shape: tuple[int, ...]
    bounded: bool
    is_pixels: bool

    @property
    def factor(self) -> int:
        """f = W / w."""
        return self.data_shape[-1] // self.shape[-1]

    def check(self) -> None:
        """ValueError if it cannot encode and decode yet."""

    @abstractmethod
    def encode(self, data: Tensor, noise: Noise | None = None) -> Tensor:
        """The signal, float32; where it is random, drawn by ``noise``, or its mean without."""

    def of_batch(self, batch: Mapping[str, Any], noise: Noise) -> Tensor:
        """The signal of a training batch with "image"."""
        return self.encode(batch["image"], noise)

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
    """A latent z of the picture by an autoencoder (Rombach et al. 2022, "latent diffusion").

    The signal is (z − shift)·scale, with a shift and a scale of each channel that bring it to mean
    0 and variance 1 over the training set (``set_scale``); until then they are NaN. Codes
    are the signal as they are, as in latent diffusion.

    The autoencoder is frozen, in evaluation mode, and computes in float32 whatever the precision of
    the run.
    """

    shift: Tensor | None
    scale: Tensor | None

    def __init__(self, autoencoder: Autoencoder, data_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.autoencoder, self.pixels = autoencoder, PixelCodec(data_shape)
        self.data_shape, self.shape = tuple(data_shape), autoencoder.latent_shape(data_shape)
        self.bounded, self.is_pixels = autoencoder.bounded, isinstance(autoencoder, Identity)
        unknown = torch.full((self.shape[0], 1, 1), torch.nan) if autoencoder.scaled else None
        self.register_buffer("shift", unknown)
        self.register_buffer("scale", None if unknown is None else unknown.clone())
        self.requires_grad_(False)

    @property
    def has_scale(self) -> bool:
        """Whether nothing is to be measured, or no more."""
        return self.scale is None or bool(self.scale.isfinite().all())

    def set_scale(self, mean: Tensor, deviation: Tensor) -> None:
        """Those of each channel of z, both (D,), over the training set.

        Raises:
            ValueError: it is set already, latents are not scaled, or a channel does not vary.
        """
        if self.scale is None or self.shift is None or self.has_scale:
            why = "these latents are not scaled" if self.scale is None else "it was set before"
            raise ValueError(f"no scale of the latents is to be set: {why}")
        if flat := (~(deviation > 0)).nonzero().flatten().tolist():
            why = "is the same in all pictures, or not a number: train the autoencoder anew"
            raise ValueError(f"channel {flat[0]} of the latent {why}")
        self.shift.copy_(mean[:, None, None])
        self.scale.copy_(1 / deviation[:, None, None])

    def check(self) -> None:
        """ValueError if the scale was not measured, or the autoencoder is not that of the run."""
        if not self.has_scale:
            raise ValueError("the scale of its latents was not measured")
        if isinstance(self.autoencoder, Trained):
            self.autoencoder.check()

    def train(self, mode: bool = True) -> Self:
        """The autoencoder is frozen: it stays in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def moments(self, data: Tensor) -> Tensor:
        """What can be kept of each picture: all that ``signal`` needs, (B, K, h, w) float32."""
        data = data.to(next(self.autoencoder.parameters(), data).device)
        with _in_float32(data.device):
            blocks = [self._of_block(block) for block in torch.split(data, BLOCK)]
        return torch.cat(blocks).contiguous()  # as latents from disk are: convolutions can tell

    def _of_block(self, data: Tensor) -> Tensor:
        x = self.pixels.encode(data)
        more = x[-1:].expand(BLOCK - len(x), *x.shape[1:])
        return self.autoencoder.moments(torch.cat((x, more)))[: len(x)]

    def signal(self, moments: Tensor, noise: Noise | None = None) -> Tensor:
        """The signal of what was kept, drawn by ``noise``, or its mean without."""
        z = self.autoencoder.drawn(moments, noise)
        if self.shift is None or self.scale is None:
            return z
        return (z - self.shift) * self.scale

    def encode(self, data: Tensor, noise: Noise | None = None) -> Tensor:
        """``signal`` of the ``moments``: the same for any batch that a picture is in."""
        return self.signal(self.moments(data), noise)

    def of_batch(self, batch: Mapping[str, Any], noise: Noise) -> Tensor:
        """That of its "moments", or where none were kept, of its "image"."""
        if "moments" in batch:
            return self.signal(batch["moments"], noise)
        return self.encode(batch["image"], noise)

    @torch.no_grad()
    def decode(self, signal: Tensor) -> Tensor:
        """The decoded pixels."""
        with _in_float32(signal.device):
            z = signal.float()
            if self.shift is not None and self.scale is not None:
                z = z / self.scale + self.shift
            return self.pixels.decode(self.autoencoder.decode(z))


def same_signal(one: Codec, other: Codec) -> bool:
    """Whether two codecs make the same signal of the same data."""
    ours, theirs = one.state_dict(), other.state_dict()
    kinds = [(each.is_pixels, each.shape) for each in (one, other)]
    if kinds[0] != kinds[1] or ours.keys() != theirs.keys():
        return False
    return all(torch.equal(value, theirs[key].to(value)) for key, value in ours.items())


@contextmanager
def _in_float32(device: torch.device) -> Iterator[None]:
    """Whatever the precision of the run, and on GPUs without TF32."""
    exact = torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )
    with torch.autocast(device.type, enabled=False), exact:
        yield


def codec_of(autoencoder: Autoencoder | None, data_shape: tuple[int, ...]) -> Codec:
    """Pixels where there is no autoencoder."""
    return LatentCodec(autoencoder, data_shape) if autoencoder else PixelCodec(data_shape)
