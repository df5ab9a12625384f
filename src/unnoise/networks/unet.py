"""The U-Net of DDPM (Ho et al. 2020, Appendix B), convention for convention."""

from collections.abc import Sequence
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from unnoise.networks.blocks import (
    Downsample,
    ResidualBlock,
    SelfAttention,
    Upsample,
    convolution,
    group_norm,
    linear,
    sinusoidal_embedding,
)
from unnoise.networks.conditioning import Condition

Count = Annotated[int, Field(ge=1)]


class Stage(nn.Module):
    """A residual block, followed by attention where the resolution asks for it."""

    def __init__(self, block: ResidualBlock, attention: SelfAttention | None) -> None:
        super().__init__()
        self.block, self.attention = block, attention

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(B, C, H, W) and the activated embedding (B, E) to (B, C', H, W)."""
        h: Tensor = self.block(x, embedding)
        return h if self.attention is None else self.attention(h)


class UNet(nn.Module):
    """Image in, image out, at a time t: (B, in_channels, S, S) to (B, out_channels, S, S).

    Level i works at resolution S / 2^i with ``channels · multipliers[i]`` channels in ``blocks``
    residual blocks on the way down and ``blocks + 1`` on the way up, with self-attention at
    ``attention_resolutions`` and in the middle. The time, and the condition vector where there is
    one, reach every residual block. The initial output is exactly 0.

    Args:
        image_size: S, height and width.
        in_channels: channels of the input.
        out_channels: channels of the output.
        channels: width at full resolution; even, at least 4.
        multipliers: width of each level, in units of ``channels``.
        blocks: residual blocks a level.
        attention_resolutions: those of S, S/2, S/4, … that have self-attention.
        head_size: channels of an attention head; None is one head of all channels.
        dropout: inside the residual blocks.
        condition_width: D of the condition vector; None for an unconditional network.
        norm_groups: most groups of a group norm; fewer where they do not divide the channels or
            would hold less than 4 channels each.

    Raises:
        ValueError: S cannot be halved often enough, an attention resolution does not occur,
            head_size does not divide a level's channels, or ``channels`` is odd.
    """

    def __init__(
        self,
        image_size: Count,
        in_channels: Count,
        out_channels: Count,
        channels: Annotated[int, Field(ge=4, multiple_of=2)] = 128,
        multipliers: Sequence[Count] = (1, 2, 2, 2),
        blocks: Count = 2,
        attention_resolutions: Sequence[Count] = (16,),
        head_size: Count | None = None,
        dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0,
        condition_width: Count | None = None,
        norm_groups: Count = 32,
    ) -> None:
        super().__init__()
        widths = [channels * m for m in multipliers]
        resolutions = _resolutions(image_size, len(widths))
        _check(channels, widths, resolutions, attention_resolutions, head_size)
        self.shape = (in_channels, image_size, image_size)
        self.channels, self.condition_width = channels, condition_width
        embedding = 4 * channels

        def attention(width: int) -> SelfAttention:
            return SelfAttention(width, head_size, norm_groups)

        def block(width_in: int, width_out: int) -> ResidualBlock:
            return ResidualBlock(width_in, width_out, embedding, dropout, norm_groups)

        def stage(width_in: int, width_out: int, resolution: int) -> Stage:
            attends = resolution in attention_resolutions
            return Stage(block(width_in, width_out), attention(width_out) if attends else None)

        self.time1, self.time2 = linear(channels, embedding), linear(embedding, embedding)
        if condition_width is not None:
            self.condition = linear(condition_width, embedding)
        self.conv_in = convolution(in_channels, channels)

        width, skips = channels, [channels]
        self.down = nn.ModuleList()
        for level, (resolution, level_width) in enumerate(zip(resolutions, widths, strict=True)):
            if level > 0:
                self.down.append(Downsample(width))
                skips.append(width)
            for _ in range(blocks):
                self.down.append(stage(width, level_width, resolution))
                skips.append(width := level_width)

        self.middle = nn.ModuleList(
            [Stage(block(width, width), attention(width)), Stage(block(width, width), None)]
        )

        self.up = nn.ModuleList()
        for level in reversed(range(len(widths))):
            for _ in range(blocks + 1):
                self.up.append(stage(width + skips.pop(), widths[level], resolutions[level]))
                width = widths[level]
            if level > 0:
                self.up.append(Upsample(width))

        self.norm_out = group_norm(width, norm_groups)
        self.conv_out = convolution(width, out_channels, zero=True)

    def forward(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """Apply the network.

        Args:
            x: (B, in_channels, S, S).
            t: (B,), or () for all; any real numbers, DDPM's are 0 … T−1.
            condition: its vector is (B, condition_width).

        Raises:
            ValueError: x or t has another shape, or a condition is missing or not wanted.
        """
        embedding = F.silu(self._embedding(x, t, condition))
        h = self.conv_in(x)
        if h.device.type == "cpu" and h.dtype == torch.float32:  # the faster layout there
            h = h.contiguous(memory_format=torch.channels_last)
        skips = [h]
        for layer in self.down:
            h = layer(h, embedding) if isinstance(layer, Stage) else layer(h)
            skips.append(h)
        for layer in self.middle:
            h = layer(h, embedding)
        for layer in self.up:
            if isinstance(layer, Stage):
                h = layer(torch.cat([h, skips.pop()], dim=1), embedding)
            else:
                h = layer(h)
        out: Tensor = self.conv_out(F.silu(self.norm_out(h)))
        return out.to(x.dtype)

    def _embedding(self, x: Tensor, t: Tensor, condition: Condition | None) -> Tensor:
        """Time and condition as one vector a sample: (B, 4·channels)."""
        if x.shape[1:] != self.shape:
            wanted = ", ".join(map(str, self.shape))
            raise ValueError(f"x has shape {tuple(x.shape)}, the network wants (B, {wanted})")
        if t.shape not in ((), x.shape[:1]):
            raise ValueError(f"t has shape {tuple(t.shape)} for a batch of {len(x)}")
        if (condition is None) != (self.condition_width is None):
            raise ValueError(
                "the network has condition_width, so it needs a condition"
                if condition is None
                else "a condition was given to a network without condition_width"
            )
        times = sinusoidal_embedding(t.expand(len(x)), self.channels).to(x.dtype)
        embedding: Tensor = self.time2(F.silu(self.time1(times)))
        if condition is not None:
            given, expected = tuple(condition.vector.shape), (len(x), self.condition_width)
            if given != expected:
                raise ValueError(f"the condition vector has shape {given}, not {expected}")
            embedding = embedding + self.condition(condition.vector)
        return embedding


def _resolutions(image_size: int, levels: int) -> list[int]:
    """The resolution of each level: image_size, image_size / 2, …"""
    if levels == 0:
        raise ValueError("multipliers is empty: give one number a level")
    unit: int = 2 ** (levels - 1)
    if image_size % unit:
        below = image_size // unit * unit
        nearest = f"{below} or {below + unit}" if below else f"{unit}"
        raise ValueError(
            f"image_size {image_size} cannot be halved {levels - 1} times: "
            f"use a multiple of {unit}, e.g. {nearest}"
        )
    return [image_size // 2**level for level in range(levels)]


def _check(
    channels: int,
    widths: list[int],
    resolutions: list[int],
    attention_resolutions: Sequence[int],
    head_size: int | None,
) -> None:
    if channels % 2 or channels < 4:
        raise ValueError(f"channels {channels} must be even and at least 4")
    absent = [r for r in attention_resolutions if r not in resolutions]
    if absent:
        raise ValueError(
            f"attention_resolutions {absent} do not occur: the levels have {resolutions}"
        )
    attending = [w for w, r in zip(widths, resolutions, strict=True) if r in attention_resolutions]
    undivided = sorted({w for w in (*attending, widths[-1]) if head_size and w % head_size})
    if undivided:
        raise ValueError(f"head_size {head_size} does not divide the channels {undivided}")
