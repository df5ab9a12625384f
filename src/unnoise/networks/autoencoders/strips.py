"""Decoding in strips of rows: the same picture as decoded whole, up to rounding, in less memory.

A strip is read with as many rows around it as its convolutions see, so that it has no seams; and
what a group norm divides by is measured over all strips first, so that they are of one picture.
Each residual block takes two passes: one to measure inside it, and one that writes. Kept whole
are only what goes into a block and what comes out of it.

Shapes: B pictures, C channels, H × W places of a level.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unnoise.networks.blocks import ResidualBlock, Upsample


@dataclass(frozen=True)
class Rows:
    """A signal (B, C, height, W) of which ``read(a, b)`` gives the rows from a to before b."""

    height: int
    read: Callable[[int, int], Tensor]

    def strips(self, number: int, around: int) -> Iterator[tuple[Tensor, slice]]:
        """Each with up to ``around`` rows more on both sides, and where in it the strip is."""
        step = -(-self.height // number)
        for first in range(0, self.height, step):
            end = min(first + step, self.height)
            low, high = max(first - around, 0), min(end + around, self.height)
            yield self.read(low, high), slice(first - low, end - low)


def whole(x: Tensor) -> Rows:
    """Of a signal that is there."""
    return Rows(x.shape[2], lambda a, b: x[:, :, a:b])


def doubled(x: Rows, upsample: Upsample) -> Rows:
    """Of a signal that is computed as it is read, each time anew."""

    def read(a: int, b: int) -> Tensor:
        low, high = max((a - 1) // 2, 0), min(b // 2 + 1, x.height)
        rows: Tensor = upsample(x.read(low, high))
        return rows[:, :, a - 2 * low : b - 2 * low]

    return Rows(2 * x.height, read)


def decode_in_strips(
    conv_in: nn.Module,
    chain: Iterable[nn.Module],
    norm_out: nn.GroupNorm,
    conv_out: nn.Module,
    z: Tensor,
    number: int,
) -> Tensor:
    """conv_out(silu(norm_out(chain(conv_in(z))))) in so many strips; attention sees the whole."""
    x = whole(conv_in(z))
    for block in chain:
        if isinstance(block, Upsample):
            x = doubled(x, block)
        elif isinstance(block, ResidualBlock):
            x = whole(_residual(block, x, number))
        else:
            x = whole(block(x.read(0, x.height)))
    last = _activation(norm_out, (part[:, :, keep] for part, keep in x.strips(number, 0)))
    strips = (conv_out(last(part))[:, :, keep] for part, keep in x.strips(number, 1))
    return _joined(strips, x.height)


def _residual(block: ResidualBlock, x: Rows, number: int) -> Tensor:
    """The block without an embedding, in strips."""
    first = _activation(block.norm1, (part for part, _ in x.strips(number, 0)))
    inner = (block.conv1(first(part))[:, :, keep] for part, keep in x.strips(number, 1))
    second = _activation(block.norm2, inner)

    def strip(part: Tensor) -> Tensor:
        out: Tensor = block.shortcut(part) + block.conv2(second(block.conv1(first(part))))
        return out

    return _joined((strip(part)[:, :, keep] for part, keep in x.strips(number, 2)), x.height)


def _activation(norm: nn.GroupNorm, strips: Iterable[Tensor]) -> Callable[[Tensor], Tensor]:
    """silu(norm(x)) for strips x, by mean and variance of all ``strips`` together.

    With mean mᵢ and variance vᵢ of strip i, nᵢ its share: m = Σ nᵢ·mᵢ, v = Σ nᵢ·(vᵢ + (mᵢ − m)²).
    """
    sizes, means, variances = [], [], []
    for part in strips:
        grouped = part.float().reshape(len(part), norm.num_groups, -1)
        variance, mean = torch.var_mean(grouped, dim=2, correction=0)
        sizes.append(part.shape[2])
        means.append(mean.cpu().double())  # MPS has no float64
        variances.append(variance.cpu().double())
    share = torch.tensor(sizes, dtype=torch.float64)[:, None, None]
    share = share / share.sum()
    each = torch.stack(means)  # (strips, B, groups)
    mean = (share * each).sum(0)
    variance = (share * (torch.stack(variances) + (each - mean).square())).sum(0)
    channels = norm.num_channels // norm.num_groups
    scale = (variance + norm.eps).rsqrt().repeat_interleave(channels, dim=1) * norm.weight.cpu()
    shift = norm.bias.cpu() - mean.repeat_interleave(channels, dim=1) * scale
    by, to = (each.to(norm.weight)[:, :, None, None] for each in (scale, shift))
    return lambda x: F.silu((x * by).add_(to), inplace=True)


def _joined(strips: Iterable[Tensor], height: int) -> Tensor:
    """One under the other."""
    out, row = None, 0
    for strip in strips:
        if out is None:
            B, C, _, W = strip.shape
            out = strip.new_empty(B, C, height, W)
        out[:, :, row : row + strip.shape[2]] = strip
        row += strip.shape[2]
    assert out is not None
    return out
