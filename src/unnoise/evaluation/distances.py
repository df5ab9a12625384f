"""Distances between sets of features, streaming where the metric allows."""

from typing import NamedTuple

import torch
from torch import Tensor


class Moments(NamedTuple):
    """Of n vectors: their mean (D,) and unbiased covariance (D, D), float64."""

    n: int
    mean: Tensor
    covariance: Tensor


def moments(features: Tensor) -> Moments:
    """Those of features (N, D)."""
    x = features.double()
    return Moments(len(x), x.mean(0), torch.cov(x.T))
