"""The parts of the U-Net, as in DDPM (Ho et al. 2020, Appendix B).

Shapes: B batch, C channels, H × W pixels, E width of the time embedding, L tokens of width D.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Convention = Literal["ddpm", "adm"]
"""Where published U-Nets differ in small things: DDPM's (Ho et al. 2020), and that of Dhariwal &
Nichol 2021 ("ADM"), after which Stable Diffusion's is built."""


def scaled_init(layer: nn.Conv2d | nn.Linear, *, zero: bool = False) -> None:
    """DDPM's initialisation: bias 0, weight uniform with variance 2 / (fan_in + fan_out), or 0."""
    if zero:
        nn.init.zeros_(layer.weight)
    else:
        nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def convolution(
    in_channels: int, out_channels: int, size: int = 3, *, zero: bool = False
) -> nn.Conv2d:
    """A size × size convolution that keeps H × W."""
    layer = nn.Conv2d(in_channels, out_channels, size, padding=size // 2)
    scaled_init(layer, zero=zero)
    return layer


def linear(in_features: int, out_features: int) -> nn.Linear:
    """A linear layer with DDPM's initialisation."""
    layer = nn.Linear(in_features, out_features)
    scaled_init(layer)
    return layer


def group_norm(channels: int, most_groups: int, convention: Convention = "ddpm") -> nn.GroupNorm:
    """Normalise in the most groups, up to ``most_groups``, that divide C and hold 4 channels each.

    Four, because a group of one channel would subtract from each channel its mean, and with it
    the time embedding (the rule of Karras et al. 2022, where channels divide). To the variance 1e-6
    is added, or ADM's 1e-5.
    """
    most = max(1, min(most_groups, channels // 4))
    groups = max(g for g in range(1, most + 1) if channels % g == 0)
    return nn.GroupNorm(groups, channels, eps=1e-6 if convention == "ddpm" else 1e-5)


def halved(shape: Sequence[int], times: int, patch: int = 1) -> tuple[int, int]:
    """H and W of (C, H, W) in patches, halved so often; ValueError if they cannot be."""
    (_, H, W), unit = shape, patch * 2**times
    if H % unit or W % unit:
        parted = "" if patch == 1 else f"parted into patches of {patch} and "
        raise ValueError(
            f"{H}×{W} pixels cannot be {parted}halved {times} times: use multiples of {unit}"
        )
    return H // unit, W // unit


def sinusoidal_embedding(t: Tensor, width: int, convention: Convention = "ddpm") -> Tensor:
    """[sin(t·f), cos(t·f)], f_i = 10000^(−i / (width/2 − 1)), i < width/2: (B,) to (B, width).

    In float32 whatever autocast says; ``width`` is even and at least 4 (Ho et al. 2020, after
    Vaswani et al. 2017, section 3.5). ADM has [cos, sin], and f_i = 10000^(−i / (width/2)).
    """
    half = width // 2
    least = half - 1 if convention == "ddpm" else half
    i = torch.arange(half, dtype=torch.float32, device=t.device)
    angles = t.float()[:, None] * torch.exp(-math.log(10000.0) * i / least)
    waves = angles.sin(), angles.cos()
    return torch.cat(waves if convention == "ddpm" else waves[::-1], dim=1)


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(q·kᵀ / √d)·v, in whichever way is fastest.

    q is (B, heads, N, d), k and v are (B, heads, M, d). Keys where ``mask`` (B, M) bool is False
    have no weight; each sample needs one that is True.
    """
    where = None if mask is None else mask[:, None, None, :]
    if q.device.type == "cpu" and q.dtype == torch.bfloat16:
        # torch's fused kernel takes 1.5 times (N = 256) to 6 times (N = 64) as long here
        scores: Tensor = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
        if where is not None:
            scores = scores.masked_fill(~where, -torch.inf)
        return scores.softmax(dim=-1) @ v
    return F.scaled_dot_product_attention(q, k, v, attn_mask=where)


class ResidualBlock(nn.Module):
    """x + conv(dropout(silu(norm(conv(silu(norm(x))) + W·silu(embedding))))), (B, C, H, W).

    The last convolution starts at zero. Where the channels change, a 1 × 1 convolution carries x.
    With an ``embedding_width`` of 0 there is no embedding.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        embedding_width: int,
        dropout: float,
        norm_groups: int,
        convention: Convention = "ddpm",
    ) -> None:
        super().__init__()
        self.norm1 = group_norm(in_channels, norm_groups, convention)
        self.conv1 = convolution(in_channels, out_channels)
        if embedding_width:
            self.time = linear(embedding_width, out_channels)
        self.norm2 = group_norm(out_channels, norm_groups, convention)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = convolution(out_channels, out_channels, zero=True)
        self.shortcut = (
            nn.Identity()
            if in_channels == out_channels
            else convolution(in_channels, out_channels, 1)
        )

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        """x (B, C, H, W) and the activated embedding silu(·) (B, E) to (B, C', H, W)."""
        h = self.conv1(F.silu(self.norm1(x)))
        if embedding is not None:
            h = h + self.time(embedding)[:, :, None, None]
        h = self.conv2(self.dropout(F.silu(self.norm2(h))))
        out: Tensor = self.shortcut(x) + h
        return out


class SelfAttention(nn.Module):
    """x + W·attention(norm(x)) over the H·W pixels, in heads of ``head_size`` channels.

    W starts at zero. Queries, keys and values are one projection, in this order.
    """

    def __init__(
        self,
        channels: int,
        head_size: int | None,
        norm_groups: int,
        convention: Convention = "ddpm",
    ) -> None:
        super().__init__()
        self.heads = 1 if head_size is None else channels // head_size
        self.norm = group_norm(channels, norm_groups, convention)
        self.qkv = nn.Linear(channels, 3 * channels)
        for part in self.qkv.weight.chunk(3):
            nn.init.xavier_uniform_(part)
        nn.init.zeros_(self.qkv.bias)
        self.out = nn.Linear(channels, channels)
        scaled_init(self.out, zero=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        _, C, H, W = x.shape
        tokens = self.norm(x).flatten(2).transpose(1, 2)  # (B, HW, C)
        q, k, v = (
            self.qkv(tokens).unflatten(2, (3, self.heads, C // self.heads)).permute(2, 0, 3, 1, 4)
        )  # each (B, heads, HW, head_size)
        h = attention(q, k, v).transpose(1, 2).flatten(2)
        out: Tensor = x + self.out(h).transpose(1, 2).unflatten(2, (H, W))
        return out


class CrossAttention(nn.Module):
    """x + W·attention(norm(x), tokens): each pixel asks the tokens, in heads of ``head_size``.

    Queries come from the pixels, keys and values from the tokens (Rombach et al. 2022, §3.3).
    W starts at zero.
    """

    def __init__(
        self, channels: int, token_width: int, head_size: int | None, norm_groups: int
    ) -> None:
        super().__init__()
        self.heads = 1 if head_size is None else channels // head_size
        self.norm = group_norm(channels, norm_groups)
        self.q = linear(channels, channels)
        self.k, self.v = linear(token_width, channels), linear(token_width, channels)
        self.out = nn.Linear(channels, channels)
        scaled_init(self.out, zero=True)

    def forward(self, x: Tensor, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """x (B, C, H, W), tokens (B, L, D) and which of them count, (B, L) bool, to x's shape."""
        H, W = x.shape[2:]
        pixels = self.norm(x).flatten(2).transpose(1, 2)  # (B, HW, C)
        q, k, v = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for part in (self.q(pixels), self.k(tokens), self.v(tokens))
        )  # each (B, heads, HW or L, head_size)
        h = attention(q, k, v, mask).transpose(1, 2).flatten(2)
        out: Tensor = x + self.out(h).transpose(1, 2).unflatten(2, (H, W))
        return out


class Downsample(nn.Module):
    """Halve H and W: a 3 × 3 convolution of stride 2.

    Padded on the right and bottom only; in ADM on all sides.
    """

    def __init__(self, channels: int, convention: Convention = "ddpm") -> None:
        super().__init__()
        self.padding = (0, 1, 0, 1) if convention == "ddpm" else (1, 1, 1, 1)
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)
        scaled_init(self.conv)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H/2, W/2)."""
        out: Tensor = self.conv(F.pad(x, self.padding))
        return out


class Upsample(nn.Module):
    """Double H and W: each pixel four times, then a 3 × 3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = convolution(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, 2H, 2W)."""
        out: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return out
