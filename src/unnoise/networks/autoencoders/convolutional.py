"""Autoencoders of convolutions: what those with a posterior and those with codes share.

The architecture is that of Esser, Rombach & Ommer 2021 (VQGAN) and Rombach et al. 2022 (latent
diffusion), convention for convention, so that their weights fit (see ``pretrained``).

Shapes: B pictures of C colours, H × W pixels; latents of D channels, h × w = H / f × W / f.
"""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unnoise.diffusion.noise import Noise
from unnoise.networks.autoencoders.base import Autoencoder
from unnoise.networks.autoencoders.strips import decode_in_strips
from unnoise.networks.blocks import (
    Downsample,
    ResidualBlock,
    SelfAttention,
    Upsample,
    convolution,
    group_norm,
    halved,
)

DECODE_PIXELS = 2**18  # 512×512
STRIPS = 8  # of those pixels: fewer take more memory, more read more rows twice


class Latent(NamedTuple):
    """What B pictures are encoded as.

    Args:
        z: (B, D, h, w), for the decoder.
        penalty: (B,), what training adds to the loss of a picture: how much z costs.
        encoded: (B, D', h, w), what the encoder itself said.
        codes: (B, h, w) int64, which of a quantizer's codes z holds, or None.
        kl: (B,) nats, the divergence of a posterior from N(0, I), or None.
    """

    z: Tensor
    penalty: Tensor
    encoded: Tensor
    codes: Tensor | None = None
    kl: Tensor | None = None


class Widths(NamedTuple):
    """Channels of each level, residual blocks a level, and how many of the last levels attend.

    ``patch`` × ``patch`` pixels are the channels of a place of the first level.
    """

    levels: Sequence[int]
    blocks: int
    attention_levels: int
    norm_groups: int
    patch: int


class _Chain(nn.Module):
    """conv_out(silu(norm(chain(conv_in(x))))); the chain is blocks one after the other."""

    def __init__(self, inputs: int, first: int, last: int, outputs: int, norm_groups: int) -> None:
        super().__init__()
        self.conv_in = convolution(inputs, first)
        self.chain = nn.Sequential()
        self.norm_out = group_norm(last, norm_groups)
        self.conv_out = convolution(last, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, …) to (B, outputs, …)."""
        h = self.conv_in(x)
        if h.device.type == "cpu" and h.dtype == torch.float32:  # the faster layout there
            h = h.contiguous(memory_format=torch.channels_last)
        h = self.chain(h)
        out: Tensor = self.conv_out(F.silu(self.norm_out(h)))
        return out


class Encoder(_Chain):
    """(B, C, H, W) to (B, outputs, h, w): level by level, then the middle.

    With ``patch`` > 1 and one level a linear map of each patch is added. Alone it would find the
    principal components, which the layers, begun at random, take ten thousands of pictures for.
    """

    def __init__(self, colours: int, outputs: int, widths: Widths) -> None:
        first, *_, last = levels = [widths.levels[0], *widths.levels]
        super().__init__(colours * widths.patch**2, first, last, outputs, widths.norm_groups)
        self.patch = widths.patch
        for level, (width_in, width) in enumerate(pairwise(levels)):
            if level > 0:
                self.chain.append(Downsample(width_in))
            attends = level >= len(widths.levels) - widths.attention_levels
            self.chain.extend(_level(width_in, width, widths.blocks, attends, widths.norm_groups))
        self.chain.extend(_middle(last, widths.norm_groups))
        self.linear = _linear(colours * widths.patch**2, outputs, widths)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, outputs, h, w)."""
        patches = F.pixel_unshuffle(x, self.patch)
        return _added(super().forward(patches), self.linear, patches)


class Decoder(_Chain):
    """(B, D, h, w) to (B, C, H, W): the middle, then level by level with a block more in each."""

    def __init__(self, latent: int, colours: int, widths: Widths) -> None:
        first, *_, last = levels = [widths.levels[-1], *reversed(widths.levels)]
        super().__init__(latent, first, last, colours * widths.patch**2, widths.norm_groups)
        self.patch = widths.patch
        self.linear = _linear(latent, colours * widths.patch**2, widths)
        self.chain.extend(_middle(first, widths.norm_groups))
        for level, (width_in, width) in enumerate(pairwise(levels)):
            if level > 0:
                self.chain.append(Upsample(width_in))
            attends, blocks = level < widths.attention_levels, widths.blocks + 1
            self.chain.extend(_level(width_in, width, blocks, attends, widths.norm_groups))

    def forward(self, z: Tensor) -> Tensor:
        """(B, D, h, w) to (B, C, H, W)."""
        return F.pixel_shuffle(_added(super().forward(z), self.linear, z), self.patch)

    def in_strips(self, z: Tensor, number: int) -> Tensor:
        """The same in so many strips."""
        parts = self.conv_in, self.chain, self.norm_out, self.conv_out
        h = decode_in_strips(*parts, z, number)
        return F.pixel_shuffle(_added(h, self.linear, z), self.patch)


def _linear(inputs: int, outputs: int, widths: Widths) -> nn.Module | None:
    """Beside layers that work at one resolution, of patches; else none."""
    return convolution(inputs, outputs, 1) if widths.patch > 1 == len(widths.levels) else None


def _added(h: Tensor, linear: nn.Module | None, x: Tensor) -> Tensor:
    return h if linear is None else h + linear(x)


def _level(
    width_in: int, width: int, blocks: int, attends: bool, norm_groups: int
) -> Iterator[nn.Module]:
    for each_in in (width_in, *[width] * (blocks - 1)):
        yield ResidualBlock(each_in, width, 0, 0.0, norm_groups)
        if attends:
            yield SelfAttention(width, None, norm_groups)


def _middle(width: int, norm_groups: int) -> list[nn.Module]:
    first, second = (ResidualBlock(width, width, 0, 0.0, norm_groups) for _ in range(2))
    return [first, SelfAttention(width, None, norm_groups), second]


class ConvolutionalAutoencoder(Autoencoder):
    """An encoder, 1 × 1 convolutions on both sides of the latent, and a decoder.

    Level i works at 1 / (patch · 2^i) of H and W with ``channels · multipliers[i]`` channels, so
    that the latent has H / f × W / f places, f = patch · 2^(levels − 1). A subclass says what the
    latent is.

    Args:
        colours: C.
        latent: D.
        encoded: channels that the encoder gives.
        channels: width of the first level.
        multipliers: width of each level, in units of ``channels``.
        blocks: residual blocks a level of the encoder; the decoder has one more.
        attention_levels: of how many levels, from the last, each block is followed by
            self-attention; between encoder and decoder there always is one on each side.
        norm_groups: most groups of a group norm; fewer where they do not divide the channels or
            would hold less than 4 channels each.
        patch: squares of patch × patch pixels are stacked as channels first, for speed; the decoder
            gives them back as its last step (Shi et al. 2016).

    Raises:
        ValueError: there are no multipliers.
    """

    def __init__(
        self,
        colours: int,
        latent: int,
        encoded: int,
        channels: int,
        multipliers: Sequence[int],
        blocks: int,
        attention_levels: int,
        norm_groups: int,
        patch: int,
    ) -> None:
        super().__init__()
        if not multipliers:
            raise ValueError("multipliers is empty: give one number a level")
        self.colours, self.latent_channels, self.halvings = colours, latent, len(multipliers) - 1
        self.decode_pixels = DECODE_PIXELS
        self.patch = patch
        levels = [channels * m for m in multipliers]
        widths = Widths(levels, blocks, attention_levels, norm_groups, patch)
        self.encoder = Encoder(colours, encoded, widths)
        self.quant = convolution(encoded, encoded, 1)
        self.post_quant = convolution(latent, latent, 1)
        self.decoder = Decoder(latent, colours, widths)

    def latent_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """(D, h, w) of (C, H, W); ValueError for other colours, or sizes that f does not divide."""
        if shape[0] != self.colours:
            raise ValueError(f"the autoencoder is for {self.colours} channels, not {shape[0]}")
        return self.latent_channels, *halved(shape, self.halvings, self.patch)

    @abstractmethod
    def latent(self, x: Tensor, noise: Noise | None = None) -> Latent:
        """The latent with what it costs, differentiable."""

    def decode(self, z: Tensor) -> Tensor:
        """(B, D, h, w) to (B, C, H, W).

        Where no gradient is wanted, so many pictures at a time as have ``decode_pixels`` pixels in
        all; a picture of more is decoded in strips of an eighth of that.
        """
        z = self.post_quant(z)
        pixels = z.shape[2] * z.shape[3] * self.patch**2 * 4**self.halvings
        if torch.is_grad_enabled() or len(z) * pixels <= self.decode_pixels:
            x: Tensor = self.decoder(z)
            return x
        if pixels <= self.decode_pixels:
            slices = torch.split(z, self.decode_pixels // pixels)
            return torch.cat([self.decoder(some) for some in slices])
        strips = -(-STRIPS * pixels // self.decode_pixels)
        return torch.cat([self.decoder.in_strips(one, strips) for one in torch.split(z, 1)])

    def forward(self, x: Tensor, noise: Noise | None = None) -> tuple[Tensor, Latent]:
        """The reconstruction (B, C, H, W) and the latent."""
        latent = self.latent(x, noise)
        return self.decode(latent.z), latent

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Encoder and decoder, but not the noise between them, which no graph can hold."""
        self.encoder.compile(*args, **kwargs)
        self.decoder.compile(*args, **kwargs)
