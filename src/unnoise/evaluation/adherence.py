"""Adherence: the share of pictures that show what was asked for."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

Z = 1.959963984540054  # Φ(Z) − Φ(−Z) = 0.95


@dataclass(frozen=True)
class Agreement:
    """``agreed`` of ``n`` pictures are judged to show what was asked for."""

    agreed: int
    n: int

    @property
    def share(self) -> float:
        """p̂ = agreed/n."""
        return self.agreed / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % confidence interval of the share (Wilson 1927).

        (p̂ + z²/2n ± z·√(p̂(1 − p̂)/n + z²/4n²)) / (1 + z²/n), z = 1.96: it never leaves [0, 1] and
        holds its level where nearly all pictures agree.
        """
        n, p = self.n, self.share
        middle = p + Z**2 / (2 * n)
        half = Z * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
        low, high = ((middle + sign * half) / (1 + Z**2 / n) for sign in (-1, 1))
        return max(low, 0.0), min(high, 1.0)


@dataclass(frozen=True)
class Row:
    """One line of the result.

    ``pictures`` are "real" or "drawn", ``asked`` says what for, ``guidance`` how loudly (None for
    real pictures), ``target`` what is judged of them.
    """

    pictures: str
    asked: str
    guidance: float | None
    target: str
    agreement: Agreement

    @property
    def values(self) -> dict[str, str | int | float | None]:
        """The row as plain values, for CSV and JSON."""
        low, high = self.agreement.interval
        return {
            "pictures": self.pictures,
            "asked": self.asked,
            "guidance": self.guidance,
            "target": self.target,
            "n": self.agreement.n,
            "agreed": self.agreement.agreed,
            "share": self.agreement.share,
            "low": low,
            "high": high,
        }


def agreements(found: Mapping[str, Tensor], asked: Mapping[str, Tensor]) -> dict[str, Agreement]:
    """For each target how many of the classes found (N,) are those asked for (N,).

    Of several targets also how many pictures agree in all of them, as "a and b".

    Raises:
        ValueError: there are no pictures, or not one class for each.
    """
    hits = {}
    for target, classes in found.items():
        if classes.shape != asked[target].shape or not len(classes):
            raise ValueError(
                f"{target}: {len(classes)} pictures were judged, {len(asked[target])} asked for"
            )
        hits[target] = classes == asked[target]
    if len(hits) > 1:
        first, *rest = hits.values()
        for each in rest:
            first = first & each
        hits[" and ".join(hits)] = first
    return {target: Agreement(int(hit.sum()), len(hit)) for target, hit in hits.items()}


def table(rows: Sequence[Row]) -> str:
    """The rows for a terminal."""
    head = ("pictures", "asked for", "guidance", "judged by", "agree", "95 % interval", "n")
    cells = [head, *(_cells(row) for row in rows)]
    widths = [max(len(line[k]) for line in cells) for k in range(len(head))]
    left = (True, True, False, True, False, False, False)
    return "\n".join(
        "  ".join(
            cell.ljust(width) if to_left else cell.rjust(width)
            for cell, width, to_left in zip(line, widths, left, strict=True)
        ).rstrip()
        for line in cells
    )


def _cells(row: Row) -> tuple[str, ...]:
    low, high = row.agreement.interval
    guidance = "" if row.guidance is None else f"{row.guidance:g}"
    share, interval = f"{row.agreement.share:.1%}", f"{low:.1%} … {high:.1%}"
    return row.pictures, row.asked, guidance, row.target, share, interval, str(row.agreement.n)
