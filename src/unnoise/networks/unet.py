"""The U-Net of DDPM (Ho et al. 2020, Appendix B), convention for convention."""

from collections.abc import Sequence
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from unnoise.networks.blocks import (
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
from unnoise.networks.conditioning import Condition

Count = Annotated[int, Field(ge=1)]


class Stage(nn.Module):
    """A residual block, and where the resolution asks for it attention: to itself, to tokens."""

    def __init__(
        self, block: ResidualBlock, attention: SelfAttention | None, cross: CrossAttention | None
    ) -> None:
        super().__init__()
        self.block, self.attention, self.cross = block, attention, cross

    def forward(self, x: Tensor, embedding: Tensor, condition: Condition) -> Tensor:
        """(B, C, H, W) and the activated embedding (B, E) to (B, C', H, W)."""
        h: Tensor = self.block(x, embedding)
        if self.attention is not None:
            h = self.attention(h)
        if self.cross is not None:
            h = self.cross(h, condition.tokens, condition.mask)
        return h


class UNet(nn.Module):
    """Image in, image out, at a time t: (B, in_channels, S, S) to (B, out_channels, S, S).

    Level i works at resolution S / 2^i with ``channels · multipliers[i]`` channels in ``blocks``
    residual blocks on the way down and ``blocks + 1`` on the way up, with self-attention at
    ``attention_resolutions`` and in the middle. The time, and the condition vector where there is
    one, reach every residual block; tokens are attended to after each self-attention; a spatial
    condition is stacked on the input. The initial output is exactly 0.

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
        condition_width: D of the condition vector; None for none.
        token_width: of the condition's tokens; None for none.
        spatial_channels: of the spatial condition; 0 for none.
        learned_variance: output (B, 2·out_channels, S, S), the second half for the variance's
            interpolation (Nichol & Dhariwal 2021, eq. 15).
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
        token_width: Count | None = None,
        spatial_channels: Annotated[int, Field(ge=0)] = 0,
        learned_variance: bool = False,
        norm_groups: Count = 32,
    ) -> None:
        super().__init__()
        widths = [channels * m for m in multipliers]
        resolutions = _resolutions(image_size, len(widths))
        _check(channels, widths, resolutions, attention_resolutions, head_size)
        self.shape = (in_channels, image_size, image_size)
        self.channels, self.condition_width = channels, condition_width
        self.token_width, self.spatial_channels = token_width, spatial_channels
        self.learned_variance = learned_variance
        embedding = 4 * channels

        def stage(width_in: int, width: int, attends: bool) -> Stage:
            block = ResidualBlock(width_in, width, embedding, dropout, norm_groups)
            if not attends:
                return Stage(block, None, None)
            attention = SelfAttention(width, head_size, norm_groups)
            if token_width is None:
                return Stage(block, attention, None)
            cross = CrossAttention(width, token_width, head_size, norm_groups)
            return Stage(block, attention, cross)

        self.time1, self.time2 = linear(channels, embedding), linear(embedding, embedding)
        if condition_width is not None:
            self.condition = linear(condition_width, embedding)
        self.conv_in = convolution(in_channels + spatial_channels, channels)

        width, skips = channels, [channels]
        self.down = nn.ModuleList()
        attends = [resolution in attention_resolutions for resolution in resolutions]
        for level, level_width in enumerate(widths):
            if level > 0:
                self.down.append(Downsample(width))
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

        self.norm_out = group_norm(width, norm_groups)
        outputs = 2 * out_channels if learned_variance else out_channels
        self.conv_out = convolution(width, outputs, zero=True)

    def forward(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """Apply the network.

        Args:
            x: (B, in_channels, S, S).
            t: (B,), or () for all; any real numbers, DDPM's are 0 … T−1.
            condition: vector (B, condition_width), tokens (B, L, token_width) and spatial
                (B, spatial_channels, S, S), as far as the network has been built for them.

        Raises:
            ValueError: x or t has another shape, or a part of the condition is missing, not wanted
                or of another shape.
        """
        condition = condition or Condition()
        self._check_inputs(x, t, condition)
        embedding = F.silu(self._embedding(t.expand(len(x)), x.dtype, condition.vector))
        told = x if condition.spatial is None else torch.cat([x, condition.spatial], dim=1)
        h = self.conv_in(told)
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
        return out.to(x.dtype)

    def _embedding(self, t: Tensor, dtype: torch.dtype, vector: Tensor | None) -> Tensor:
        """Time and condition vector as one vector a sample: (B, 4·channels)."""
        times = sinusoidal_embedding(t, self.channels).to(dtype)
        embedding: Tensor = self.time2(F.silu(self.time1(times)))
        return embedding if vector is None else embedding + self.condition(vector)

    def _check_inputs(self, x: Tensor, t: Tensor, condition: Condition) -> None:
        if x.shape[1:] != self.shape:
            wanted = ", ".join(map(str, self.shape))
            raise ValueError(f"x has shape {tuple(x.shape)}, the network wants (B, {wanted})")
        B = len(x)
        if t.shape not in ((), (B,)):
            raise ValueError(f"t has shape {tuple(t.shape)} for a batch of {B}")
        vector, tokens, mask, spatial = condition
        L = 0 if tokens is None else tokens.shape[1]
        D, E, C, S = self.condition_width, self.token_width, self.spatial_channels, self.shape[1]
        _check_field("vector", vector, "condition_width", D, (B, D))
        _check_field("tokens", tokens, "token_width", E, (B, L, E))
        _check_field("spatial", spatial, "spatial_channels", C, (B, C, S, S))
        if mask is not None and (mask.dtype != torch.bool or mask.shape != (B, L)):
            given = f"{mask.dtype} {tuple(mask.shape)}"
            raise ValueError(f"the condition's mask is {given}, not torch.bool {(B, L)}")


def _check_field(
    field: str, value: Tensor | None, key: str, width: int | None, shape: tuple[int | None, ...]
) -> None:
    """A field of the condition has this shape; it is None where the network lacks ``key``."""
    if not width:
        if value is not None:
            raise ValueError(f"the condition has {field}, but the network is without {key}")
    elif value is None:
        raise ValueError(f"the network has {key}, so it needs a condition with {field}")
    elif value.shape != shape:
        raise ValueError(f"the condition's {field} has shape {tuple(value.shape)}, not {shape}")


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
