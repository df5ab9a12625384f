"""How many samples show what their prompt says, as judged by classifiers."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from unnoise.evaluation.results import aligned

Z = 1.959963984540054  # Φ(Z) − Φ(−Z) = 0.95


@dataclass(frozen=True)
class Agreement:
    """``agreed`` of ``n`` samples are judged to show what their prompt says."""

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
        holds its level where nearly all samples agree.
        """
        n, p = self.n, self.share
        middle = p + Z**2 / (2 * n)
        half = Z * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
        low, high = ((middle + sign * half) / (1 + Z**2 / n) for sign in (-1, 1))
        return max(low, 0.0), min(high, 1.0)


@dataclass(frozen=True)
class Row:
    """One line of the result.

    Args:
        pictures: "real" or "drawn".
        prompts: the name of the set of prompts.
        guidance: the scale; None for real pictures.
        label: what was judged: "label", "kind", "kind and colour", …
        agreement: how many agree.
    """

    pictures: str
    prompts: str
    guidance: float | None
    label: str
    agreement: Agreement

    @property
    def values(self) -> dict[str, str | int | float | None]:
        """The row as plain values, for CSV and JSON."""
        low, high = self.agreement.interval
        return {
            "pictures": self.pictures,
            "prompts": self.prompts,
            "guidance": self.guidance,
            "judged": self.label,
            "n": self.agreement.n,
            "agreed": self.agreement.agreed,
            "share": self.agreement.share,
            "low": low,
            "high": high,
        }


def agreements(
    predicted: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> Iterator[tuple[str, Agreement]]:
    """For each kind of label, how many of the predicted classes (N,) are the expected ones (N,).

    Of several kinds also how many samples agree in all of them, as "a and b".

    Raises:
        ValueError: there are no samples, or not one class for each.
    """
    hits = []
    for label, classes in predicted.items():
        if classes.shape != expected[label].shape or not len(classes):
            raise ValueError(
                f"{label}: {len(classes)} samples were judged, but {len(expected[label])} expected"
            )
        hits.append((label, classes == expected[label]))
    if len(hits) > 1:
        every = hits[0][1]
        for _, each in hits[1:]:
            every = every & each
        hits.append((" and ".join(predicted), every))
    for label, hit in hits:
        yield label, Agreement(int(hit.sum()), len(hit))


def table(rows: Sequence[Row]) -> str:
    """The rows for a terminal."""
    head = ("pictures", "prompts", "guidance", "judged by", "agree", "95 % interval", "n")
    return "\n".join(aligned([head, *(_cells(row) for row in rows)], left=(0, 1, 3)))


def _cells(row: Row) -> tuple[str, ...]:
    low, high = row.agreement.interval
    guidance = "" if row.guidance is None else f"{row.guidance:g}"
    share, interval = f"{row.agreement.share:.1%}", f"{low:.1%} … {high:.1%}"
    return row.pictures, row.prompts, guidance, row.label, share, interval, str(row.agreement.n)
