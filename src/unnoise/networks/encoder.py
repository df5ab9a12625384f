"""A classifier of noisy pictures: the way down of the U-Net (Dhariwal & Nichol 2021, §4)."""

from collections.abc import Sequence
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from unnoise.config.numbers import Count
from unnoise.networks.blocks import (
    Downsample,
    ResidualBlock,
    SelfAttention,
    convolution,
    group_norm,
    halved,
    linear,
    sinusoidal_embedding,
)


class UNetEncoder(nn.Module):
    """A picture at a time t to logits: (B, C, H, W) to (B, classes).

    Level i works at 1 / (patch · 2^i) of H and W with ``channels · multipliers[i]`` channels in
    ``blocks`` residual blocks, all of which get the time; at the last level the pixels attend
    to each other, and their mean is mapped to the logits. The initial output is exactly 0.

    Args:
        shape: (C, H, W) of the input.
        classes: logits a picture.
        channels: width at full resolution; even, at least 4.
        patch: squares of patch × patch pixels are stacked as channels first, for speed.
        multipliers: width of each level, in units of ``channels``.
        blocks: residual blocks a level.
        dropout: inside the residual blocks.
        norm_groups: most groups of a group norm.

    Raises:
        ValueError: H or W cannot be halved often enough, or there are no levels.
    """

    def __init__(
        self,
        shape: Sequence[Count],
        classes: Count,
        channels: Annotated[int, Field(ge=4, multiple_of=2)] = 32,
        patch: Count = 1,
        multipliers: Sequence[Count] = (1, 2, 2),
        blocks: Count = 1,
        dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0,
        norm_groups: Count = 32,
    ) -> None:
        super().__init__()
        if not multipliers:
            raise ValueError("multipliers is empty: give one number a level")
        halved(shape, len(multipliers) - 1, patch)
        self.shape, self.classes = tuple(shape), classes
        self.channels, self.patch, embedding = channels, patch, 4 * channels
        self.time1, self.time2 = linear(channels, embedding), linear(embedding, embedding)
        self.conv_in = convolution(shape[0] * patch**2, channels)
        width = channels
        self.down = nn.ModuleList()
        for level, multiplier in enumerate(multipliers):
            if level > 0:
                self.down.append(Downsample(width))
            for _ in range(blocks):
                wider = channels * multiplier
                self.down.append(ResidualBlock(width, wider, embedding, dropout, norm_groups))
                width = wider
        self.attention = SelfAttention(width, None, norm_groups)
        self.norm_out = group_norm(width, norm_groups)
        self.logits = linear(width, classes)
        nn.init.zeros_(self.logits.weight)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Logits (B, classes) of x (B, C, H, W) at times t, (B,) or () for all.

        Raises:
            ValueError: x has another shape.
        """
        if x.shape[1:] != self.shape:
            wanted = ", ".join(map(str, self.shape))
            raise ValueError(f"x has shape {tuple(x.shape)}, the classifier wants (B, {wanted})")
        times = sinusoidal_embedding(t.expand(len(x)), self.channels).to(x.dtype)
        embedding = F.silu(self.time2(F.silu(self.time1(times))))
        h = self.conv_in(F.pixel_unshuffle(x, self.patch))
        if h.device.type == "cpu" and h.dtype == torch.float32:  # the faster layout there
            h = h.contiguous(memory_format=torch.channels_last)
        for layer in self.down:
            h = layer(h, embedding) if isinstance(layer, ResidualBlock) else layer(h)
        pooled = F.silu(self.norm_out(self.attention(h))).mean(dim=(2, 3))
        logits: Tensor = self.logits(pooled)
        return logits
