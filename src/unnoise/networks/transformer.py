"""The spatial transformer of latent diffusion (Rombach et al. 2022, §3.3 and appendix E.2.1).

Shapes: B batch, C channels, H × W pixels, N = H·W, L tokens of width D.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from unnoise.networks.blocks import attention, group_norm, linear, scaled_init


class Attention(nn.Module):
    """W·attention(x, context) in heads; queries, keys and values are projected without bias."""

    def __init__(self, width: int, context_width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width, bias=False)
        self.k = nn.Linear(context_width, width, bias=False)
        self.v = nn.Linear(context_width, width, bias=False)
        for layer in (self.q, self.k, self.v):
            scaled_init(layer)
        self.out = linear(width, width)

    def forward(self, x: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        """x (B, N, C), context (B, L, D) and which of it counts, (B, L) bool, to x's shape."""
        q, k, v = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for part in (self.q(x), self.k(context), self.v(context))
        )  # each (B, heads, N or L, C / heads)
        out: Tensor = self.out(attention(q, k, v, mask).transpose(1, 2).flatten(2))
        return out


class TransformerBlock(nn.Module):
    """Self-attention, attention to the tokens if there are some, and a feed-forward of width 4·C.

    Each is added to what it gets, normalised over its channels. The feed-forward is GEGLU,
    W₂(a ⊙ gelu(b)) with (a, b) = W₁x (Shazeer 2020, "GLU variants improve transformer").
    """

    def __init__(self, width: int, token_width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width, width, heads)
        if token_width:
            self.norm2, self.cross = nn.LayerNorm(width), Attention(width, token_width, heads)
        self.norm3 = nn.LayerNorm(width)
        self.mlp1, self.mlp2 = linear(width, 8 * width), linear(4 * width, width)

    def forward(self, x: Tensor, tokens: Tensor | None, mask: Tensor | None) -> Tensor:
        """x (B, N, C), tokens (B, L, D) and which of them count, (B, L) bool, to x's shape."""
        normed = self.norm1(x)
        x = x + self.attention(normed, normed)
        if tokens is not None:
            x = x + self.cross(self.norm2(x), tokens, mask)
        inner, gate = self.mlp1(self.norm3(x)).chunk(2, dim=2)
        out: Tensor = x + self.mlp2(inner * F.gelu(gate))
        return out


class SpatialTransformer(nn.Module):
    """x + W₂·blocks(W₁·norm(x)), the pixels as tokens; W₂ starts at zero.

    Args:
        channels: C.
        token_width: D, or 0 where there are no tokens.
        heads: of all attentions.
        depth: blocks.
        norm_groups: most groups of the group norm.
    """

    def __init__(
        self, channels: int, token_width: int, heads: int, depth: int, norm_groups: int
    ) -> None:
        super().__init__()
        self.norm = group_norm(channels, norm_groups)
        self.proj_in = linear(channels, channels)
        self.blocks = nn.ModuleList(
            TransformerBlock(channels, token_width, heads) for _ in range(depth)
        )
        self.proj_out = linear(channels, channels)
        scaled_init(self.proj_out, zero=True)

    def forward(self, x: Tensor, tokens: Tensor | None, mask: Tensor | None = None) -> Tensor:
        """x (B, C, H, W), tokens (B, L, D) and which of them count, (B, L) bool, to x's shape."""
        H, W = x.shape[2:]
        h = self.proj_in(self.norm(x).flatten(2).transpose(1, 2))  # (B, N, C)
        for block in self.blocks:
            h = block(h, tokens, mask)
        out: Tensor = x + self.proj_out(h).transpose(1, 2).unflatten(2, (H, W))
        return out
