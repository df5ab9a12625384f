"""Likelihood of real pictures: means with their uncertainty, in bits a dimension."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Estimate:
    """The mean of a term over ``n`` pictures, and the standard error of that mean."""

    term: str
    mean: float
    error: float
    n: int

    @property
    def values(self) -> dict[str, str | float | int]:
        """The row as plain values, for CSV and JSON."""
        return {"term": self.term, "n": self.n, "bits/dim": self.mean, "error": self.error}


def estimates(terms: Mapping[str, Tensor]) -> list[Estimate]:
    """The mean of each term (N,) with its standard error s/√N; N ≥ 2."""
    return [
        Estimate(term, float(bits.mean()), float(bits.std()) / math.sqrt(len(bits)), len(bits))
        for term, bits in terms.items()
    ]


def table(rows: Sequence[Estimate]) -> str:
    """The rows for a terminal."""
    width = max(len(row.term) for row in rows)
    lines = [f"{row.term:<{width}}  {row.mean:>8.4f} ± {row.error:.4f}  {row.n}" for row in rows]
    return "\n".join([f"{'term':<{width}}  bits/dim ± error   n", *lines])
