"""Nearest neighbours among features, and the manifolds that they span."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from unnoise.evaluation.distances import CHUNK

K_MANIFOLD = 3  # neighbours in the radii of precision and recall
K_DENSITY = 5  # neighbours in the radii of density and coverage
SAME = 1e-6  # vectors nearer than this part of their length are one


def distances(x: Tensor, y: Tensor) -> Tensor:
    """‖x − y‖ of each x (N, D) and y (M, D): (N, M) float32.

    By ‖x‖² + ‖y‖² − 2·x·y in float64 about the mean of y, rounded only at the end: two pictures
    whose features differ by no more than a network's rounding are at distance 0, and the same pair
    has the same distance from either side.
    """
    x, y = x.double(), y.double()
    middle = y.mean(0)
    x, y = x - middle, y - middle
    lengths = x.square().sum(1)[:, None] + y.square().sum(1)
    squares = torch.addmm(lengths, x, y.T, alpha=-2)
    return squares.masked_fill_(squares < SAME**2 * lengths, 0).sqrt_().float()


class Surroundings(NamedTuple):
    """Of each of N pictures the distance to others of its set, (N,) each.

    ``third`` and ``fifth``: to the third and fifth nearest other one, which may be a duplicate at
    distance 0. ``other``: to the nearest that is not a duplicate, ∞ if there is none.
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
        raise ValueError(
            f"{K_DENSITY} neighbours take {K_DENSITY + 1} pictures, there are {len(x)}"
        )
    found = []
    for _, to in _among(x):
        near = to.topk(K_DENSITY, largest=False).values
        other = to.where(to > 0, torch.inf).amin(1)
        found.append(Surroundings(near[:, K_MANIFOLD - 1], near[:, K_DENSITY - 1], other))
    return Surroundings(*(torch.cat(parts) for parts in zip(*found, strict=True)))


class Hits(NamedTuple):
    """How N drawn pictures lie to M real ones.

    ``inside`` (N,): whether one lies in the manifold of the real ones. ``balls`` (N,): in how many
    of the balls of density. ``copied`` (N,): whether it lies nearer to its nearest real picture
    than any other real one does. ``closest`` (M,): from each real picture to the nearest drawn one.
    """

    inside: Tensor
    balls: Tensor
    copied: Tensor
    closest: Tensor


def hits(x: Tensor, y: Tensor, around: Surroundings) -> Hits:
    """Those of drawn features (N, D), real ones (M, D) and these one's surroundings."""
    closest = torch.full((len(y),), torch.inf, device=x.device)
    inside, balls, copied = [], [], []
    for _, to in _between(x, y):
        inside.append((to <= around.third).any(1))
        balls.append((to <= around.fifth).sum(1))
        nearest, which = to.min(1)
        copied.append(nearest < around.other[which])
        closest = closest.minimum(to.amin(0))
    return Hits(torch.cat(inside), torch.cat(balls), torch.cat(copied), closest)


def nearest(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Which of y (M, D) is nearest to each x (N, D), and its distance: (N,) int64, (N,) float32."""
    found = [to.min(1) for _, to in _between(x, y)]
    return torch.cat([each.indices for each in found]), torch.cat([each.values for each in found])


def radii(x: Tensor, groups: int) -> Tensor:
    """Distance of each of N pictures to its third nearest other one, (1 + groups, N).

    First among all, then without each group, where picture i is in group i mod groups; a picture
    of the group that is left out has the radius −1: nothing is in its ball.

    Raises:
        ValueError: that leaves no third other one.
    """
    n, k = len(x), K_MANIFOLD
    left = n - (-(-n // groups) if groups else 0)
    if left <= k:
        raise ValueError(f"{k} neighbours take {k + 1} pictures, there are {left}")
    own = torch.arange(n, device=x.device) % max(groups, 1)
    found = []
    for rows, to in _among(x):
        near = [to.topk(k, largest=False).values[:, -1]]
        if groups:
            columns = [to[:, group::groups] for group in range(groups)]
            least = [each.topk(min(k, each.shape[1]), largest=False).values for each in columns]
            for group in range(groups):
                rest = torch.cat(least[:group] + least[group + 1 :], 1)
                radius = rest.topk(k, largest=False).values[:, -1]
                near.append(radius.where(own[rows] != group, -1))
        found.append(torch.stack(near))
    return torch.cat(found, 1)


def covered(y: Tensor, x: Tensor, radii: Tensor) -> Tensor:
    """The share (R,) of y (M, D) within balls about x (N, D), for each row of radii (R, N)."""
    count = torch.zeros(len(radii), device=x.device, dtype=torch.float64)
    for _, to in _between(y, x):
        count += torch.stack([(to <= each).any(1).sum() for each in radii])
    return count / len(y)


def _between(x: Tensor, y: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """A few rows of x at a time, as numbers, with their distances to all of y."""
    for rows in torch.split(torch.arange(len(x), device=x.device), max(CHUNK // len(y), 1)):
        yield rows, distances(x[rows], y)


def _among(x: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """As above, of x to itself; a picture is at distance ∞ from itself."""
    for rows, to in _between(x, x):
        to[torch.arange(len(rows), device=x.device), rows] = torch.inf
        yield rows, to
