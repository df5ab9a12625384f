"""Distances between sets of pictures, by their features."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

CHUNK = 1 << 22  # entries of a matrix over pairs of pictures that are held at a time


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
    middle = x.mean(0)
    x = x - middle
    return moments_of_sums(len(x), x.sum(0), x.T @ x, middle)


def moments_of_sums(n: int, total: Tensor, outer: Tensor, shift: Tensor) -> Moments:
    """Those of n vectors x by Σ(x − shift) (D,) and Σ(x − shift)(x − shift)ᵀ (D, D).

    A shift near their mean keeps the difference below from losing digits.

    Raises:
        ValueError: n < 2.
    """
    if n < 2:
        raise ValueError(f"a covariance takes 2 pictures or more, there are {n}")
    mean = total / n
    return Moments(n, shift + mean, (outer - n * torch.outer(mean, mean)) / (n - 1))


def frechet_distance(a: Moments, b: Moments) -> Tensor:
    """‖μ_a − μ_b‖² + tr Σ_a + tr Σ_b − 2·tr (Σ_a·Σ_b)^½, a scalar in float64 (Heusel et al. 2017).

    The trace is the sum of the roots of the eigenvalues of Aᵀ·Σ_a·A with Σ_b = A·Aᵀ, a symmetric
    matrix with the eigenvalues of Σ_a·Σ_b, whether these are singular or not. Fewer pictures than
    dimensions are permitted: at most min(n_a, n_b) − 1 eigenvalues differ from 0 then, the rest is
    rounding and left out. The distance is biased upwards, by about 1/n: compare like counts.

    Raises:
        ValueError: the two are not of one dimension.
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"features of {len(a.mean)} dimensions against {len(b.mean)}")
    product = b.root.T @ a.covariance @ b.root
    eigenvalues = torch.linalg.eigvalsh((product + product.T) / 2)  # in ascending order
    rank = min(len(eigenvalues), a.n - 1, b.n - 1)
    trace = eigenvalues[-rank:].clamp(min=0).sqrt().sum()
    distance = (a.mean - b.mean).square().sum() - 2 * trace
    return (distance + a.covariance.trace() + b.covariance.trace()).clamp(min=0)


def kernel(x: Tensor, y: Tensor) -> Tensor:
    """k(x, y) = (x·y/D + 1)³ of each x (N, D) and y (M, D): (N, M) (Bińkowski et al. 2018)."""
    return torch.pow(x @ y.T / x.shape[1] + 1, 3)


def kernel_sums(x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """aᵀ·K·b (G, H) in float64 of K = k(x, y) and weights a (N, G), b (M, H).

    K is made a few rows at a time: the memory it takes does not grow with N.
    """
    y, b = y.double(), b.double()
    rows = max(CHUNK // len(y), 1)
    pieces = zip(torch.split(x.double(), rows), torch.split(a.double(), rows), strict=True)
    return torch.stack([each.T @ (kernel(some, y) @ b) for some, each in pieces]).sum(0)


def kernel_sums_of_pairs(x: Tensor, a: Tensor) -> Tensor:
    """aᵀ·K·a (G, G) of K = k(x, x) with zeros on its diagonal."""
    own = (x.double().square().sum(1) / x.shape[1] + 1).pow(3)
    return kernel_sums(x, x, a, a) - a.double().T @ (own[:, None] * a)


def kernel_mean(x: Tensor) -> Tensor:
    """Mean of k(x_i, x_j) over i ≠ j of x (N, D), a scalar in float64.

    Raises:
        ValueError: N < 2.
    """
    n = len(x)
    if n < 2:
        raise ValueError(f"a pair takes 2 pictures, there are {n}")
    return kernel_sums_of_pairs(x, x.new_ones(n, 1))[0, 0] / (n * (n - 1))
