"""Normalizing flows: invertible maps between pictures and normal latents of the same shape.

Shapes: B batch, C channels, H × W pixels in N patches of p × p, D = C·p² numbers of a patch,
E width of the condition vector.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unnoise.config.numbers import Count
from unnoise.networks.adversarial import PlainBlock
from unnoise.networks.blocks import attention, convolution, halved, linear, scaled_init
from unnoise.networks.conditioning import UNCONDITIONAL, ConditionShape


class Flow(nn.Module, ABC):
    """An invertible map of (B, *shape), under a condition (B, E) if it was built for one.

    The first two arguments of a subclass's constructor are these, and are no keys of its YAML file.

    Args:
        shape: (C, H, W).
        condition: a vector at most.
    """

    def __init__(self, shape: Sequence[Count], condition: ConditionShape = UNCONDITIONAL) -> None:
        super().__init__()
        self.shape, self.width_of_condition = tuple(shape), condition.only_vector

    @abstractmethod
    def encode(self, x: Tensor, vector: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """z of signals x, and ln |det ∂z/∂x| of each, (B,) nats, in float32 or better."""

    @abstractmethod
    def forward(self, z: Tensor, vector: Tensor | None = None) -> Tensor:
        """The signals of z: the inverse of ``encode``."""


class CausalLayer(nn.Module):
    """h + attention(norm(h)), then h + MLP(norm(h)); a token sees itself and those before it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = linear(width, 3 * width), linear(width, width)
        self.mlp = nn.Sequential(linear(width, 4 * width), nn.GELU(), linear(4 * width, width))

    def forward(self, h: Tensor, seen: list[Tensor] | None = None) -> Tensor:
        """(B, N, width) to the same; with ``seen``, keys and values of tokens before this one."""
        qkv = self.qkv(self.norm1(h)).unflatten(2, (3, self.heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, N, width/heads)
        if seen is None:
            found = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            if seen:
                k, v = (torch.cat(pair, dim=2) for pair in zip(seen, (k, v), strict=True))
            seen[:] = k, v
            found = attention(q, k, v)
        h = h + self.out(found.transpose(1, 2).flatten(2))
        out: Tensor = h + self.mlp(self.norm2(h))
        return out


class AutoregressiveBlock(nn.Module):
    """z_i = (x_i − μ(x_<i))·exp(−α(x_<i)) of tokens i > 0, and z_0 = x_0, by a causal transformer.

    μ and α are 0 at first. Zhai et al. 2024, eq. 5–7.
    """

    def __init__(
        self, numbers: int, tokens: int, width: int, layers: int, heads: int, condition: int
    ) -> None:
        super().__init__()
        self.embed = linear(numbers, width)
        self.positions = nn.Parameter(0.02 * torch.randn(tokens, width))
        if condition:
            self.vector = linear(condition, width)
        self.layers = nn.ModuleList(CausalLayer(width, heads) for _ in range(layers))
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, 2 * numbers)
        scaled_init(self.out, zero=True)

    def encode(self, x: Tensor, vector: Tensor | None) -> tuple[Tensor, Tensor]:
        """(B, N, D) to z of the same shape and ln |det| (B,): all tokens at once."""
        mu, alpha = (F.pad(each, (0, 0, 1, 0)) for each in self._next(x[:, :-1], vector))
        return (x - mu) * (-alpha).exp(), -alpha.sum((1, 2))

    def decode(self, z: Tensor, vector: Tensor | None) -> Tensor:
        """The inverse: token after token, keys and values of the former ones being kept."""
        x = [z[:, :1]]
        seen: list[list[Tensor]] = [[] for _ in self.layers]
        for i in range(1, z.shape[1]):
            mu, alpha = self._next(x[-1], vector, i - 1, seen)
            x.append(z[:, i : i + 1] * alpha.exp() + mu)
        return torch.cat(x, dim=1)

    def _next(
        self,
        x: Tensor,
        vector: Tensor | None,
        first: int = 0,
        seen: list[list[Tensor]] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """μ and α of the token after each of these, which begin at number ``first``."""
        h = self.embed(x) + self.positions[first : first + x.shape[1]]
        if vector is not None:
            h = h + self.vector(vector)[:, None]
        for k, layer in enumerate(self.layers):
            h = layer(h, None if seen is None else seen[k])
        mu, alpha = self.out(self.norm(h)).to(x).chunk(2, dim=2)
        return mu, alpha


class TarFlow(Flow):
    """Blocks of causal transformers over patches, in turn from the first and from the last one.

    Zhai et al. 2024, "Normalizing Flows are Capable Generative Models". At first it is the
    identity.

    Args:
        patch: p, which divides H and W.
        width: of the transformers, a multiple of ``heads``.
        blocks: of one direction each.
        layers: of each block.
        heads: attention heads.

    Raises:
        ValueError: p does not divide H and W, or ``heads`` the width.
    """

    def __init__(
        self,
        shape: Sequence[Count],
        condition: ConditionShape = UNCONDITIONAL,
        patch: Count = 2,
        width: Count = 128,
        blocks: Count = 4,
        layers: Count = 2,
        heads: Count = 4,
    ) -> None:
        super().__init__(shape, condition)
        channels, height, columns = self.shape
        if height % patch or columns % patch:
            raise ValueError(f"patch {patch} does not divide the {height}×{columns} pixels")
        if width % heads:
            raise ValueError(f"heads {heads} do not divide the width {width}")
        self.patch, self.grid = patch, (height // patch, columns // patch)
        sizes = channels * patch**2, self.grid[0] * self.grid[1], width, layers, heads
        self.blocks: Any = nn.ModuleList(
            AutoregressiveBlock(*sizes, self.width_of_condition) for _ in range(blocks)
        )

    def encode(self, x: Tensor, vector: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) to z of the same shape, and ln |det| (B,)."""
        tokens, total = self._tokens(x), x.new_zeros(len(x))
        for k, block in enumerate(self.blocks):
            tokens, log_det = block.encode(self._turned(tokens, k), vector)
            tokens, total = self._turned(tokens, k), total + log_det
        return self._picture(tokens), total

    def forward(self, z: Tensor, vector: Tensor | None = None) -> Tensor:
        """(B, C, H, W) to the same."""
        tokens = self._tokens(z)
        for k, block in reversed([*enumerate(self.blocks)]):
            tokens = self._turned(block.decode(self._turned(tokens, k), vector), k)
        return self._picture(tokens)

    def _turned(self, tokens: Tensor, block: int) -> Tensor:
        """In the order that a block takes them in."""
        return tokens.flip(1) if block % 2 else tokens

    def _tokens(self, x: Tensor) -> Tensor:
        return F.pixel_unshuffle(x, self.patch).flatten(2).transpose(1, 2)

    def _picture(self, tokens: Tensor) -> Tensor:
        channels = tokens.transpose(1, 2).reshape(len(tokens), -1, *self.grid)
        return F.pixel_shuffle(channels, self.patch)


class Coupling(nn.Module):
    """z = x where the mask is 1, else (x − μ)·exp(−α), μ and α of the masked x; 0 at first.

    α = a·tanh(·) with a learned a of each channel (Dinh et al. 2017, §3.2 and 4.1).
    """

    def __init__(self, mask: Tensor, width: int, blocks: int, condition: int) -> None:
        super().__init__()
        self.mask: Tensor
        self.register_buffer("mask", mask, persistent=False)
        channels = len(mask)
        self.start = convolution(channels, width)
        if condition:
            self.vector = linear(condition, width)
        self.blocks = nn.Sequential(*(PlainBlock(width) for _ in range(blocks)))
        self.out = convolution(width, 2 * channels, zero=True)
        self.bound = nn.Parameter(torch.ones(channels, 1, 1))

    def encode(self, x: Tensor, vector: Tensor | None) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) to z of the same shape and ln |det| (B,)."""
        mu, alpha = self._of_kept(x, vector)
        return (x - mu) * (-alpha).exp(), -alpha.flatten(1).sum(1)

    def decode(self, z: Tensor, vector: Tensor | None) -> Tensor:
        """The inverse."""
        mu, alpha = self._of_kept(z, vector)
        return z * alpha.exp() + mu

    def _of_kept(self, x: Tensor, vector: Tensor | None) -> tuple[Tensor, Tensor]:
        h = self.start(self.mask * x)
        if vector is not None:
            h = h + self.vector(vector)[:, :, None, None]
        mu, alpha = self.out(F.leaky_relu(self.blocks(h), 0.2)).to(x).chunk(2, dim=1)
        changed = 1 - self.mask
        return changed * mu, changed * self.bound * alpha.tanh()


class RealNVP(Flow):
    """Coupling layers with masks like a checkerboard, then, with 2 × 2 pixels as channels, of half
    of the channels; so at each scale. Dinh, Sohl-Dickstein & Bengio 2017, "Density estimation using
    Real NVP", with all numbers coupled to the end. At first it is the identity.

    Args:
        width: channels of the layers' networks.
        blocks: residual blocks of each.
        couplings: layers of each kind at each scale.
        scales: how often H and W are halved.

    Raises:
        ValueError: H or W cannot be halved so often.
    """

    def __init__(
        self,
        shape: Sequence[Count],
        condition: ConditionShape = UNCONDITIONAL,
        width: Count = 32,
        blocks: Count = 1,
        couplings: Count = 4,
        scales: Count = 2,
    ) -> None:
        super().__init__(shape, condition)
        halved(shape, scales)
        channels, height, columns = self.shape
        self.scales, self.couplings = scales, couplings
        rest = width, blocks, self.width_of_condition
        layers: list[Coupling] = []
        for _ in range(scales):
            board = (torch.arange(height)[:, None] + torch.arange(columns)) % 2
            masks = [board.expand(channels, -1, -1).float()]
            channels, height, columns = 4 * channels, height // 2, columns // 2
            half = (torch.arange(channels) < channels // 2).float()
            masks.append(half[:, None, None].expand(-1, height, columns))
            for mask in masks:
                both = mask, 1 - mask
                layers += [Coupling(both[k % 2].clone(), *rest) for k in range(couplings)]
        self.layers: Any = nn.ModuleList(layers)

    def encode(self, x: Tensor, vector: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) to z of the same shape, and ln |det| (B,)."""
        total = x.new_zeros(len(x))
        for k, layer in enumerate(self.layers):
            if k % (2 * self.couplings) == self.couplings:
                x = F.pixel_unshuffle(x, 2)
            x, log_det = layer.encode(x, vector)
            total = total + log_det
        for _ in range(self.scales):
            x = F.pixel_shuffle(x, 2)
        return x, total

    def forward(self, z: Tensor, vector: Tensor | None = None) -> Tensor:
        """(B, C, H, W) to the same."""
        x = z
        for _ in range(self.scales):
            x = F.pixel_unshuffle(x, 2)
        for k in reversed(range(len(self.layers))):
            x = self.layers[k].decode(x, vector)
            if k % (2 * self.couplings) == self.couplings:
                x = F.pixel_shuffle(x, 2)
        return x
