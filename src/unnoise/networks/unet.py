"""The U-Net of DDPM (Ho et al. 2020, Appendix B), convention for convention, and with transformers
that of Stable Diffusion (Rombach et al. 2022)."""

from collections.abc import Sequence
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from unnoise.config.numbers import Count
from unnoise.networks.base import Backbone
from unnoise.networks.blocks import (
    Convention,
    CrossAttention,
    Downsample,
    ResidualBlock,
    SelfAttention,
    Upsample,
    convolution,
    group_norm,
    linear,
    sinusoidal_embedding,
)
from unnoise.networks.conditioning import UNCONDITIONAL, Condition, ConditionShape
from unnoise.networks.conditioning.base import Width
from unnoise.networks.transformer import SpatialTransformer


class Stage(nn.Module):
    """A residual block, and where the resolution asks for it attention: to itself, to tokens.

    Or in place of these two a transformer.
    """

    def __init__(
        self,
        block: ResidualBlock,
        attention: SelfAttention | None = None,
        cross: CrossAttention | None = None,
        transformer: SpatialTransformer | None = None,
    ) -> None:
        super().__init__()
        self.block, self.attention, self.cross = block, attention, cross
        self.transformer = transformer

    def forward(self, x: Tensor, embedding: Tensor, condition: Condition) -> Tensor:
        """(B, C, H, W) and the activated embedding (B, E) to (B, C', H, W)."""
        h: Tensor = self.block(x, embedding)
        if self.attention is not None:
            h = self.attention(h)
        if self.cross is not None:
            h = self.cross(h, condition.tokens, condition.mask)
        if self.transformer is not None:
            h = self.transformer(h, condition.tokens, condition.mask)
        return h


class UNet(Backbone):
    """A picture at a time t to a picture: (B, C, H, W) to (B, outputs, H, W).

    Level i works at H / 2^i × W / 2^i with ``channels · multipliers[i]`` channels in ``blocks``
    residual blocks on the way down and ``blocks + 1`` on the way up, with self-attention at
    ``attention_resolutions`` and in the middle. The time, and the condition vector where there is
    one, reach every residual block; tokens are attended to after each self-attention; a spatial
    condition is stacked on the input. With a ``transformer_depth`` both attentions are parts of
    transformers. The initial output is exactly 0.

    Args:
        shape: (C, H, W) of the input.
        outputs: channels of the output.
        condition: widths of the condition's fields.
        channels: width at full resolution; even, at least 4.
        multipliers: width of each level, in units of ``channels``.
        blocks: residual blocks a level.
        attention_resolutions: of max(H, W), halved level by level, those with self-attention.
        head_size: channels of an attention head; None is one head of all channels.
        dropout: inside the residual blocks.
        norm_groups: most groups of a group norm; fewer where they do not divide the channels or
            would hold less than 4 channels each.
        heads: of an attention at any level, in place of ``head_size``.
        transformer_depth: blocks of a transformer, wherever there is attention; 0: no transformers,
            but DDPM's attention.
        convention: ddpm, or adm, Stable Diffusion's: group norms add 1e-5 to the variance (but 1e-6
            in transformers), halving convolutions are padded on all sides, and times have other
            frequencies.

    Raises:
        ValueError: H or W cannot be halved often enough, an attention resolution does not occur,
            head_size or heads do not divide a level's channels or are both given, or ``channels``
            is odd.
    """

    def __init__(
        self,
        shape: Sequence[Count],
        outputs: Count,
        condition: ConditionShape = UNCONDITIONAL,
        channels: Annotated[int, Field(ge=4, multiple_of=2)] = 128,
        multipliers: Sequence[Count] = (1, 2, 2, 2),
        blocks: Count = 2,
        attention_resolutions: Sequence[Count] = (16,),
        head_size: Count | None = None,
        dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0,
        norm_groups: Count = 32,
        heads: Count | None = None,
        transformer_depth: Width = 0,
        convention: Convention = "ddpm",
    ) -> None:
        super().__init__(shape, outputs, condition)
        widths = [channels * m for m in multipliers]
        resolutions = _resolutions(self.shape, len(widths))
        _check(channels, widths, resolutions, attention_resolutions, head_size, heads)
        self.channels, self.convention, embedding = channels, convention, 4 * channels

        def stage(width_in: int, width: int, attends: bool) -> Stage:
            block = ResidualBlock(width_in, width, embedding, dropout, norm_groups, convention)
            if not attends:
                return Stage(block)
            size = width // heads if heads else head_size
            if transformer_depth:
                parts = width // (size or width), transformer_depth, norm_groups
                return Stage(block, transformer=SpatialTransformer(width, condition.tokens, *parts))
            attention = SelfAttention(width, size, norm_groups, convention)
            if not condition.tokens:
                return Stage(block, attention)
            return Stage(
                block, attention, CrossAttention(width, condition.tokens, size, norm_groups)
            )

        self.time1, self.time2 = linear(channels, embedding), linear(embedding, embedding)
        if condition.vector:
            self.condition = linear(condition.vector, embedding)
        self.conv_in = convolution(self.shape[0] + condition.spatial, channels)

        width, skips = channels, [channels]
        self.down = nn.ModuleList()
        attends = [resolution in attention_resolutions for resolution in resolutions]
        for level, level_width in enumerate(widths):
            if level > 0:
                self.down.append(Downsample(width, convention))
                skips.append(width)
            for _ in range(blocks):
                self.down.append(stage(width, level_width, attends[level]))
                skips.append(width := level_width)

        self.middle = nn.ModuleList([stage(width, width, True), stage(width, width, False)])

        self.up = nn.ModuleList()
        for level in reversed(range(len(widths))):
            for _ in range(blocks + 1):
                self.up.append(stage(width + skips.pop(), widths[level], attends[level]))
                width = widths[level]
            if level > 0:
                self.up.append(Upsample(width))

        self.norm_out = group_norm(width, norm_groups, convention)
        self.conv_out = convolution(width, outputs, zero=True)

    def run(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """(B, C, H, W) at times (B,) to (B, outputs, H, W)."""
        embedding = F.silu(self._embedding(t, x.dtype, condition.vector))
        if condition.spatial is not None:
            x = torch.cat([x, condition.spatial], dim=1)
        h = self.conv_in(x)
        if h.device.type == "cpu" and h.dtype == torch.float32:  # the faster layout there
            h = h.contiguous(memory_format=torch.channels_last)
        skips = [h]
        for layer in self.down:
            h = layer(h, embedding, condition) if isinstance(layer, Stage) else layer(h)
            skips.append(h)
        for layer in self.middle:
            h = layer(h, embedding, condition)
        for layer in self.up:
            if isinstance(layer, Stage):
                h = layer(torch.cat([h, skips.pop()], dim=1), embedding, condition)
            else:
                h = layer(h)
        out: Tensor = self.conv_out(F.silu(self.norm_out(h)))
        return out

    def _embedding(self, t: Tensor, dtype: torch.dtype, vector: Tensor | None) -> Tensor:
        """Time and condition vector as one vector a sample: (B, 4·channels)."""
        times = sinusoidal_embedding(t, self.channels, self.convention).to(dtype)
        embedding: Tensor = self.time2(F.silu(self.time1(times)))
        return embedding if vector is None else embedding + self.condition(vector)


def _resolutions(shape: Sequence[int], levels: int) -> list[int]:
    """The longer side of each level: max(H, W), max(H, W) / 2, …"""
    if levels == 0:
        raise ValueError("multipliers is empty: give one number a level")
    unit: int = 2 ** (levels - 1)
    for size in shape[1:]:
        if size % unit:
            below = size // unit * unit
            nearest = f"{below} or {below + unit}" if below else f"{unit}"
            raise ValueError(
                f"{size} pixels cannot be halved {levels - 1} times: use an image_size that is a "
                f"multiple of {unit}, e.g. {nearest}"
            )
    return [max(shape[1:]) // 2**level for level in range(levels)]


def _check(
    channels: int,
    widths: list[int],
    resolutions: list[int],
    attention_resolutions: Sequence[int],
    head_size: int | None,
    heads: int | None,
) -> None:
    if channels % 2 or channels < 4:
        raise ValueError(f"channels {channels} must be even and at least 4")
    absent = [r for r in attention_resolutions if r not in resolutions]
    if absent:
        raise ValueError(
            f"attention_resolutions {absent} do not occur: the longer sides of the levels are "
            f"{resolutions}"
        )
    if head_size and heads:
        raise ValueError(f"head_size {head_size} and heads {heads}: give one of them")
    name, parts = ("heads", heads) if heads else ("head_size", head_size)
    attending = [w for w, r in zip(widths, resolutions, strict=True) if r in attention_resolutions]
    undivided = sorted({w for w in (*attending, widths[-1]) if parts and w % parts})
    if undivided:
        raise ValueError(f"{name} {parts} does not divide the channels {undivided}")
