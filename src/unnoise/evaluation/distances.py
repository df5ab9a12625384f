"""Distances between sets of pictures, by their features."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

CHUNK = 1 << 20  # entries of a matrix over pairs of pictures that are in memory at a time


@dataclass(frozen=True, eq=False)
class Moments:
    """Of n vectors: their mean (D,) and unbiased covariance (D, D), float64."""

    n: int
    mean: Tensor
    covariance: Tensor

    @cached_property
    def root(self) -> Tensor:
        """A (D, D) such that A·Aᵀ is the covariance: V·√Λ of its eigenvectors and -values.

        Eigenvalues below D·ε of the largest are rounding, and count as 0.
        """
        values, vectors = torch.linalg.eigh(self.covariance)
        rounding = len(values) * torch.finfo(values.dtype).eps * values[-1]
        return torch.mul(vectors, values.where(values > rounding, 0).sqrt())


def moments(features: Tensor) -> Moments:
    """Those of features (N, D).

    Raises:
        ValueError: there are fewer than two.
    """
    x = features.double()
    shift = x.mean(0)
    x = x - shift
    return moments_of_sums(len(x), x.sum(0), x.T @ x, shift)


def moments_of_sums(n: int, total: Tensor, outer: Tensor, shift: Tensor) -> Moments:
    """Those of n vectors x by Σ(x − shift) (D,) and Σ(x − shift)(x − shift)ᵀ (D, D).

    A shift near their mean keeps the difference below from losing digits.

    Raises:
        ValueError: n < 2.
    """
    if n < 2:
        raise ValueError(f"the covariance of features takes 2 pictures or more, not {n}")
    mean = total / n
    return Moments(n, shift + mean, (outer - n * torch.outer(mean, mean)) / (n - 1))


def frechet_distance(a: Moments, b: Moments) -> Tensor:
    """‖μ_a − μ_b‖² + tr Σ_a + tr Σ_b − 2·tr (Σ_a·Σ_b)^½, a scalar in float64 (Heusel et al. 2017).

    The last trace is the sum of the roots of the eigenvalues of Aᵀ·Σ_a·A with Σ_b = A·Aᵀ, a
    symmetric matrix with the eigenvalues of Σ_a·Σ_b, whether these are singular or not. Of fewer
    pictures than dimensions only min(n_a, n_b) − 1 eigenvalues differ from 0; the others are
    rounding and left out. The distance is too large by about 1/n, the more so the more dimensions:
    compare numbers of as many pictures.

    Raises:
        ValueError: the two are not of as many dimensions.
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(
            f"features of {len(a.mean)} dimensions cannot be compared with {len(b.mean)}"
        )
    product = b.root.T @ a.covariance @ b.root
    eigenvalues = torch.linalg.eigvalsh((product + product.T) / 2)  # in ascending order
    rank = min(len(eigenvalues), a.n - 1, b.n - 1)
    trace = eigenvalues[-rank:].clamp(min=0).sqrt().sum()
    distance: Tensor = (a.mean - b.mean).square().sum() - 2 * trace
    distance += a.covariance.trace() + b.covariance.trace()
    return distance.clamp(min=0)


def kernel(x: Tensor, y: Tensor) -> Tensor:
    """k(x, y) = (x·y/D + 1)³ of each x (N, D) and y (M, D): (N, M) (Bińkowski et al. 2018)."""
    return (x @ y.T).div_(x.shape[1]).add_(1).pow_(3)


def kernel_sums(x: Tensor, y: Tensor, v: Tensor, w: Tensor) -> Tensor:
    """vᵀ·K·w (G, H) of K = k(x, y) and weights v (N, G), w (M, H), all float64.

    K is made a few rows at a time, so that N costs no memory.
    """
    rows = max(CHUNK // len(y), 1)
    pieces = zip(torch.split(x, rows), torch.split(v, rows), strict=True)
    return torch.stack([each.T @ (kernel(some, y) @ w) for some, each in pieces]).sum(0)


def kernel_mean(x: Tensor, weights: Tensor) -> Tensor:
    """Mean of k(x_i, x_j) over i ≠ j of x (N, D), where both have weight 1 and not 0.

    (G,) for weights (N, G), all float64.

    Raises:
        ValueError: there are fewer than two with weight 1.
    """
    n = weights.sum(0)
    if n.min() < 2:
        raise ValueError(f"the kernel of pairs takes 2 pictures or more, not {int(n.min())}")
    same = (x.square().sum(1) / x.shape[1] + 1).pow(3) @ weights
    return (kernel_sums(x, x, weights, weights).diagonal() - same) / (n * (n - 1))


def kernel_distance(x: Tensor, y: Tensor, weights: Tensor, likeness: Tensor) -> Tensor:
    """Unbiased estimate of the squared MMD of x (N, D) to y (M, D) (Bińkowski et al. 2018).

    mean k(x_i, x_j) − 2·mean k(x_i, y_j) + mean k(y_i, y_j), i ≠ j where both are of one set; a
    little below 0 at times. ``weights`` (N, G) of 1 and 0 choose the x of each value, (G,);
    ``likeness`` is the last term. All float64.

    Raises:
        ValueError: fewer than two x are chosen.
    """
    mixed = kernel_sums(x, y, weights, y.new_ones(len(y), 1))[:, 0]
    return kernel_mean(x, weights) - 2 * mixed / (weights.sum(0) * len(y)) + likeness
