"""The diffusion transformer (Peebles & Xie 2023, "Scalable Diffusion Models with Transformers").

Shapes: B batch, C channels, H × W pixels in N patches of p × p, L condition tokens, D width.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unnoise.config.numbers import Count
from unnoise.networks.base import Backbone
from unnoise.networks.blocks import attention, linear, scaled_init, sinusoidal_embedding
from unnoise.networks.conditioning import UNCONDITIONAL, Condition, ConditionShape

TIMES = 256  # width of the sinusoidal embedding of the time


class DiT(Backbone):
    """Patches of the picture as tokens of a transformer whose blocks are the identity at first.

    The time, plus the condition vector, sets shift, scale and gate of every block (adaLN-Zero,
    §3.2). Condition tokens are projected and put before the patches (in-context conditioning); a
    spatial condition is stacked on the input. Positions are fixed sines and cosines. The initial
    output is exactly 0.

    Args:
        shape: (C, H, W) of the input.
        outputs: channels of the output; twice C with a learned variance.
        condition: widths of the conditions; a vector of width D is added as it is, another is
            projected.
        patch: p, which divides H and W.
        width: D, a multiple of 4 and of ``heads``.
        depth: blocks.
        heads: attention heads.

    Raises:
        ValueError: p does not divide H and W, or ``heads`` or 4 does not divide D.
    """

    def __init__(
        self,
        shape: Sequence[int],
        outputs: Count,
        condition: ConditionShape = UNCONDITIONAL,
        patch: Count = 2,
        width: Count = 384,
        depth: Count = 12,
        heads: Count = 6,
    ) -> None:
        super().__init__(shape, outputs, condition)
        channels, height, columns = self.shape
        if height % patch or columns % patch:
            raise ValueError(f"patch {patch} does not divide the {height}×{columns} pixels")
        if width % heads or width % 4:
            raise ValueError(f"width {width} must be a multiple of 4 and of heads ({heads})")
        self.patch, self.grid = patch, (height // patch, columns // patch)
        self.embed = linear((channels + condition.spatial) * patch**2, width)
        self.time1, self.time2 = linear(TIMES, width), linear(width, width)
        if condition.vector not in (0, width):
            self.vector = linear(condition.vector, width)
        if condition.tokens:
            self.tokens = linear(condition.tokens, width)
        self.blocks = nn.ModuleList(DiTBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.modulation = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, outputs * patch**2)
        for layer in (self.modulation, self.out):
            scaled_init(layer, zero=True)
        self.positions: Tensor
        self.register_buffer("positions", sine_positions(self.grid, width), persistent=False)

    def run(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """(B, C, H, W) at times (B,) to (B, outputs, H, W)."""
        if condition.spatial is not None:
            x = torch.cat([x, condition.spatial], dim=1)
        h = self.embed(F.pixel_unshuffle(x, self.patch).flatten(2).transpose(1, 2))
        h = h + self.positions  # (B, N, D), float32 also under autocast
        mask, first = None, 0
        if condition.tokens is not None:
            tokens = self.tokens(condition.tokens)
            h, first = torch.cat([tokens, h], dim=1), tokens.shape[1]
            if condition.mask is not None:
                mask = F.pad(condition.mask, (0, h.shape[1] - first), value=True)
        signal = F.silu(self._signal(t, x.dtype, condition.vector))[:, None]  # (B, 1, D)
        for block in self.blocks:
            h = block(h, signal, mask)
        shift, scale = self.modulation(signal).chunk(2, dim=-1)
        h = self.out(modulate(self.norm(h[:, first:]), shift, scale))
        return F.pixel_shuffle(h.transpose(1, 2).unflatten(2, self.grid), self.patch)

    def _signal(self, t: Tensor, dtype: torch.dtype, vector: Tensor | None) -> Tensor:
        """Time and condition vector as one vector a sample: (B, D)."""
        times = sinusoidal_embedding(t, TIMES).to(dtype)
        signal: Tensor = self.time2(F.silu(self.time1(times)))
        if vector is None:
            return signal
        return signal + (self.vector(vector) if hasattr(self, "vector") else vector)


class DiTBlock(nn.Module):
    """h + g₁·attention(norm(h)·(1 + s₁) + b₁), then the same with an MLP of width 4·D.

    Shift b, scale s and gate g are a linear map of the signal that starts at 0 (adaLN-Zero).
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.qkv, self.out = linear(width, 3 * width), linear(width, width)
        self.mlp1, self.mlp2 = linear(width, 4 * width), linear(4 * width, width)
        self.modulation = nn.Linear(width, 6 * width)
        scaled_init(self.modulation, zero=True)

    def forward(self, h: Tensor, signal: Tensor, mask: Tensor | None) -> Tensor:
        """h (B, N, D), the activated signal (B, 1, D), and which tokens count, (B, N) bool."""
        b1, s1, g1, b2, s2, g2 = self.modulation(signal).chunk(6, dim=-1)
        qkv = self.qkv(modulate(self.norm(h), b1, s1)).unflatten(2, (3, self.heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, N, D/heads)
        h = h + g1 * self.out(attention(q, k, v, mask).transpose(1, 2).flatten(2))
        inner = F.gelu(self.mlp1(modulate(self.norm(h), b2, s2)), approximate="tanh")
        out: Tensor = h + g2 * self.mlp2(inner)
        return out


def modulate(h: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """h·(1 + scale) + shift."""
    return h * (1 + scale) + shift


def sine_positions(grid: tuple[int, int], width: int) -> Tensor:
    """Sines and cosines of row and column at width/4 frequencies each: (rows·columns, width)."""
    frequencies = torch.exp(-math.log(10000.0) * torch.arange(width // 4) / (width // 4))
    axes = torch.meshgrid(*(torch.arange(n) for n in grid), indexing="ij")
    angles = [place.flatten()[:, None] * frequencies for place in axes]
    return torch.cat([part for a in angles for part in (a.sin(), a.cos())], dim=1)
