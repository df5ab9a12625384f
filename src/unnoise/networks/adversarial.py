"""A small generator and discriminator of residual blocks without normalisation (R3GAN, §4), and
the discriminator of patches that autoencoders learn from.

Shapes: B batch, C channels, H × W pixels, Z latent numbers, D width of the condition vector.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unnoise.config.numbers import Count, Positive
from unnoise.networks.blocks import (
    Upsample,
    convolution,
    group_norm,
    halved,
    linear,
    scaled_init,
)
from unnoise.networks.conditioning.base import UNCONDITIONAL, ConditionShape


@dataclass(frozen=True)
class LatentSampler:
    """Draws by one call of a generator, a decoder or a flow on ``scale``·z, z ~ N(0, I).

    Below 1 pictures are more typical and less varied.
    """

    scale: Positive = 1.0


class PlainBlock(nn.Module):
    """x + conv(lrelu(conv(lrelu(x)))), (B, C, H, W); the last convolution starts at zero."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = convolution(channels, channels)
        self.conv2 = convolution(channels, channels, zero=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        h = self.conv1(F.leaky_relu(x, 0.2))
        out: Tensor = x + self.conv2(F.leaky_relu(h, 0.2))
        return out


class Generator(nn.Module):
    """Latents (B, Z) to signals (B, C, H, W): from H / 2^scales × W / 2^scales up.

    Args:
        shape: (C, H, W).
        latent: Z.
        channels: width at full resolution; each halving of H and W doubles it.
        scales: how often H and W are doubled.
        condition: a vector at most, which is put beside the latent.
        outputs: channels of the output, if not C.

    Raises:
        ValueError: H or W cannot be halved so often, or the condition has tokens or a picture.
    """

    def __init__(
        self,
        shape: Sequence[Count],
        latent: Count = 64,
        channels: Count = 32,
        scales: Count = 2,
        condition: ConditionShape = UNCONDITIONAL,
        outputs: Count | None = None,
    ) -> None:
        super().__init__()
        self.shape, self.latent = tuple(shape), latent
        least = halved(shape, scales)
        widths = [channels * 2**level for level in reversed(range(scales + 1))]
        inputs = latent + condition.only_vector
        self.start = nn.Sequential(
            linear(inputs, widths[0] * least[0] * least[1]), nn.Unflatten(1, (widths[0], *least))
        )
        self.blocks = nn.Sequential(PlainBlock(widths[0]))
        for wide, narrow in pairwise(widths):
            self.blocks.extend([Upsample(wide), convolution(wide, narrow, 1), PlainBlock(narrow)])
        self.out = convolution(channels, shape[0] if outputs is None else outputs)

    def forward(self, z: Tensor, vector: Tensor | None = None) -> Tensor:
        """(B, Z), and the condition (B, D) if there is one, to (B, C, H, W)."""
        z = z if vector is None else torch.cat((z, vector), dim=1)
        out: Tensor = self.out(F.leaky_relu(self.blocks(self.start(z)), 0.2))
        return out


class Encoder(nn.Module):
    """Signals (B, C, H, W) to ``outputs`` numbers each, (B, outputs); the generator upside down."""

    def __init__(
        self,
        shape: Sequence[Count],
        outputs: Count,
        channels: Count = 32,
        scales: Count = 2,
        condition: ConditionShape = UNCONDITIONAL,
    ) -> None:
        super().__init__()
        height, width = halved(shape, scales)
        self.start = convolution(shape[0], channels)
        self.blocks = nn.Sequential(PlainBlock(channels))
        for level in range(scales):
            narrow = channels * 2**level
            down = [nn.AvgPool2d(2), convolution(narrow, 2 * narrow, 1), PlainBlock(2 * narrow)]
            self.blocks.extend(down)
        self.features = channels * 2**scales * height * width
        self.out = linear(self.features + condition.only_vector, outputs)

    def trunk(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, features)."""
        return F.leaky_relu(self.blocks(self.start(x)), 0.2).flatten(1)

    def forward(self, x: Tensor, vector: Tensor | None = None) -> Tensor:
        """(B, C, H, W), and the condition (B, D) if there is one, to (B, outputs)."""
        h = self.trunk(x)
        out: Tensor = self.out(h if vector is None else torch.cat((h, vector), dim=1))
        return out


class Discriminator(Encoder):
    """Signals (B, C, H, W) to one score each, (B,).

    Under a condition v the score of features h is w·h + h·P v (Miyato & Koyama 2018), P 0 at first.
    """

    def __init__(
        self,
        shape: Sequence[Count],
        channels: Count = 32,
        scales: Count = 2,
        condition: ConditionShape = UNCONDITIONAL,
    ) -> None:
        super().__init__(shape, 1, channels, scales)
        if condition.only_vector:
            self.projection = nn.Linear(condition.only_vector, self.features, bias=False)
            scaled_init(self.projection, zero=True)

    def forward(self, x: Tensor, vector: Tensor | None = None) -> Tensor:
        """(B, C, H, W), and the condition (B, D) if there is one, to (B,)."""
        h = self.trunk(x)
        score: Tensor = self.out(h)[:, 0]
        return score if vector is None else score + (h * self.projection(vector)).sum(1)


class PatchDiscriminator(nn.Module):
    """Signals (B, C, H, W) to a score of each of their patches, (B, h, w) (PatchGAN).

    ``layers`` convolutions of stride 2 and two of stride 1, of 4 × 4 pixels each, see patches of
    16, 34 or 70 pixels with 1, 2 or 3 layers (Isola et al. 2017, appendix 6.1.2). Theirs are
    normalised over the batch; these by groups of channels, so that a score is its picture's alone,
    whatever batch or process that is in, and training has no statistics to keep.

    Args:
        shape: (C, H, W).
        channels: of the first layer; the next have 2, 4 and at most 8 times as many.
        layers: of stride 2.

    Raises:
        ValueError: the pictures are too small for so many layers.
    """

    def __init__(self, shape: Sequence[Count], channels: Count = 64, layers: Count = 3) -> None:
        super().__init__()
        self.least = 3 * 2**layers  # pixels of a side
        if min(shape[1:]) < self.least:
            sides = f"{shape[1]}×{shape[2]}"
            raise ValueError(f"{sides} pixels are too few for {layers} layers: use fewer")
        widths = [channels * min(2**layer, 8) for layer in range(layers + 1)]
        first = nn.Conv2d(shape[0], channels, 4, stride=2, padding=1)
        self.layers = nn.Sequential(first, nn.LeakyReLU(0.2))
        for layer, (narrow, wide) in enumerate(pairwise(widths), start=1):
            stride = 2 if layer < layers else 1
            conv = nn.Conv2d(narrow, wide, 4, stride=stride, padding=1, bias=False)
            self.layers.extend([conv, group_norm(wide, 32), nn.LeakyReLU(0.2)])
        self.layers.append(nn.Conv2d(widths[-1], 1, 4, padding=1))
        for each in self.layers:
            if isinstance(each, nn.Conv2d):
                nn.init.normal_(each.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, h, w)."""
        scores: Tensor = self.layers(x)[:, 0]
        return scores
