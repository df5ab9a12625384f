"""Nearest neighbours among features, and the manifolds that they span.

Distances are Euclidean, ‖x‖² + ‖y‖² − 2·x·y in float64 about the mean of y, and rounded to float32
only in the end, so that a pair is as far apart seen from either side. Two pictures nearer than
10⁻⁶ of what they lie off that mean count as duplicates, at distance 0. Balls are closed.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from unnoise.evaluation.distances import CHUNK

K_MANIFOLD = 3  # neighbours in the radii of precision and recall
K_DENSITY = 5  # neighbours in the radii of density and coverage
SAME = 1e-6


class Surroundings(NamedTuple):
    """Of each of N pictures the distance to others of its set, (N,) each.

    ``third`` and ``fifth``: to the third and fifth nearest other one, duplicates among them.
    ``other``: to the nearest that is not a duplicate; ∞ if there is none.
    """

    third: Tensor
    fifth: Tensor
    other: Tensor


def surroundings(x: Tensor) -> Surroundings:
    """Those of features (N, D).

    Raises:
        ValueError: there are not more than five.
    """
    if len(x) <= K_DENSITY:
        raise ValueError(f"{K_DENSITY} neighbours take {K_DENSITY + 1} pictures, not {len(x)}")
    found = Surroundings(*x.new_empty(3, len(x), dtype=torch.float32))
    start = 0
    for to in _among(x):
        here = slice(start, start + len(to))
        near = to.topk(K_DENSITY, largest=False).values
        found.third[here], found.fifth[here] = near[:, K_MANIFOLD - 1], near[:, K_DENSITY - 1]
        found.other[here] = to.where(to > 0, torch.inf).amin(1)
        start += len(to)
    return found


class Hits(NamedTuple):
    """How N drawn pictures lie to M real ones.

    ``inside`` (N,): whether one lies in the manifold of the real ones, the union of balls as large
    as ``third``. ``balls`` (N,): in how many balls as large as ``fifth``. ``copied`` (N,): whether
    it lies nearer to its nearest real picture than any other real one does, duplicates aside.
    ``closest`` (M,): from each real picture to the nearest drawn one, ∞ if there are none.
    """

    inside: Tensor
    balls: Tensor
    copied: Tensor
    closest: Tensor


def hits(x: Tensor, y: Tensor, around: Surroundings) -> Hits:
    """Those of drawn features (N, D), real ones (M, D) and the surroundings of the latter."""
    closest = torch.full((len(y),), torch.inf, device=x.device)
    inside, balls, copied = [], [], []
    for to in _between(x, y):
        inside.append((to <= around.third).any(1))
        balls.append((to <= around.fifth).sum(1))
        distance, which = to.min(1)
        copied.append(distance < around.other[which])
        closest = torch.cat([closest[None], to]).amin(0)
    return Hits(torch.cat(inside), torch.cat(balls), torch.cat(copied), closest)


def kept(n: int, groups: int) -> Tensor:
    """Which of n pictures a value is of, (1 + groups, n) bool.

    The first is of all, the others of all but each group, where picture i is in i mod groups.
    """
    own = torch.arange(n) % max(groups, 1)
    return torch.cat([own[None] >= 0, own != torch.arange(groups)[:, None]])


def radii(x: Tensor, groups: int) -> Tensor:
    """From each of N pictures to its third nearest other one, of those kept, (1 + groups, N).

    −1, a ball with nothing in it, where the picture itself is not kept.

    Raises:
        ValueError: fewer than four are kept.
    """
    k, keep = K_MANIFOLD, kept(len(x), groups).to(x.device)
    if (left := int(keep.sum(1).min())) <= k:
        raise ValueError(f"{k} neighbours take {k + 1} pictures, not {left}")
    found = []
    for to in _among(x):
        near = [to.topk(k, largest=False).values[:, -1]]
        parts = [to[:, group::groups] for group in range(groups)]
        least = [part.topk(min(k, part.shape[1]), largest=False).values for part in parts]
        for group in range(groups):
            rest = torch.cat(least[:group] + least[group + 1 :], 1)
            near.append(rest.topk(k, largest=False).values[:, -1])
        found.append(torch.stack(near))
    return torch.cat(found, 1).where(keep, -1)


def covered(y: Tensor, x: Tensor, radii: Tensor) -> Tensor:
    """The share of y (M, D) within balls about x (N, D), (R,) for radii (R, N)."""
    count = torch.zeros(len(radii), device=x.device, dtype=torch.float64)
    for to in _between(y, x):
        count += torch.stack([(to <= radius).any(1).sum() for radius in radii])
    return count / len(y)


def _between(x: Tensor, y: Tensor) -> Iterator[Tensor]:
    """Distances of a few rows of x (N, D) at a time to all y (M, D)."""
    middle = y.double().mean(0)
    y = y.double() - middle
    y_squares = y.square().sum(1)
    for rows in torch.split(x, max(CHUNK // len(y), 1)):
        some = rows.double() - middle
        lengths = some.square().sum(1)[:, None] + y_squares
        squares = torch.addmm(lengths, some, y.T, alpha=-2)
        yield squares.masked_fill_(squares < SAME**2 * lengths, 0).sqrt_().float()


def _among(x: Tensor) -> Iterator[Tensor]:
    """As above of x to itself; nothing is its own neighbour, at distance ∞ from itself."""
    start = 0
    for to in _between(x, x):
        to.diagonal(start).fill_(torch.inf)
        start += len(to)
        yield to
