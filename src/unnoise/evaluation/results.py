"""Numbers with all that they depend on, and which of them may be compared."""

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from unnoise.files import write_durably, write_text

LOWER_IS_BETTER = ("fd", "fid", "sfd", "sfid", "kid", "memorised", "bits_per_dim")
"""Beginnings of the names of metrics of which less is better; of the others more is."""

ESSENTIAL = ("fd", "fid", "kid", "precision", "recall")
"""What a table shows first of all metrics."""
WIDTH = 100
"""Of a table for a terminal, in characters."""


@dataclass(frozen=True)
class Estimate:
    """A number and its standard error; None where it has none."""

    value: float
    error: float | None = None

    def __str__(self) -> str:
        """The value to two digits of its error, as in 8.17 ± 0.33."""
        if not self.error or not math.isfinite(self.error):
            return f"{self.value:.4g}"
        digits = max(0, 1 - math.floor(math.log10(self.error)))
        return f"{self.value:.{digits}f} ± {self.error:.{digits}f}"


@dataclass(frozen=True)
class Fingerprint:
    """What has to agree before two numbers may be compared.

    Args:
        count: samples that were scored.
        reference: the real ones they were compared with, as "train 10000 of 1a2b3c4d5e6f".
        extractor: name and digest, as "garments 1a2b3c4d5e6f".
        resize: how pictures came to the extractor's size.
        rounding: how floats became pixels.
        manifold: what neighbours were sought by, and among how many, as "spatial of 1000".
    """

    count: int
    reference: str
    extractor: str
    resize: str
    rounding: str
    manifold: str = "pooled of all"

    def differences(self, other: "Fingerprint") -> list[str]:
        """Why numbers of the two cannot be compared; empty if they can."""
        return [
            f"{field.name} is {ours!r} in one, {theirs!r} in the other"
            for field in fields(self)
            if (ours := getattr(self, field.name)) != (theirs := getattr(other, field.name))
        ]


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Which samples were scored; what does not apply to them is None.

    Costs are for one sample. The other fields are those of ``SampleSet``.
    """

    kind: Literal["drawn", "given", "real", "noise"]
    source: str | None = None  # the run, the file, or the fingerprint of the real data
    evaluations: float | None = None  # of the network
    seconds: float | None = None
    sampler: str | None = None  # its name
    recipe: dict[str, Any] | None = None
    steps: int | None = None
    guidance: float | None = None
    checkpoint: str | None = None
    model: str | None = None
    step: int | None = None  # of the checkpoint
    averaged: bool | float | None = None
    seed: int | None = None
    precision: str | None = None
    prompts: str | None = None
    parameters: int | None = None  # of the network that draws
    training: float | None = None  # seconds, those of a run that it started from too; see ``Spent``
    classifier: str | None = None

    @property
    def is_control(self) -> bool:
        """Whether they are scored for comparison only."""
        return self.kind in ("real", "noise")


@dataclass(frozen=True)
class Score:
    """What was measured of some samples. ``name`` is short, for a table."""

    name: str
    samples: Samples
    fingerprint: Fingerprint
    metrics: dict[str, Estimate]


def lower_is_better(metric: str) -> bool:
    """Whether less of it is better; of a metric from elsewhere where it is named a distance."""
    return metric.startswith(LOWER_IS_BETTER) or "distance" in metric


def comparable(scores: Sequence[Score]) -> list[list[Score]]:
    """The scores in groups within which all numbers may be compared, in order of appearance."""
    groups: dict[Fingerprint, list[Score]] = {}
    for score in scores:
        groups.setdefault(score.fingerprint, []).append(score)
    return list(groups.values())


def save(path: Path, scores: Sequence[Score], **about: Any) -> list[Path]:
    """Write the scores as JSON, under "scores" beside ``about``, and as CSV; see ``write``."""
    content = {**about, "scores": [asdict(score) for score in scores]}
    return write(path, content, [flat(score) for score in scores])


def write(path: Path, content: dict[str, Any], rows: Sequence[dict[str, Any]]) -> list[Path]:
    """A JSON file, and rows as a CSV file beside it; the paths of both.

    The CSV has every key that any row has; a key that a row lacks is left empty there.
    """

    def write_csv(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)))
            writer.writeheader()
            writer.writerows(rows)

    text, table = json.dumps(content, indent=2) + "\n", path.with_suffix(".csv")
    write_text(path, text)
    write_durably(table, write_csv)
    return [table, path]


def read(path: Path) -> list[Score]:
    """What ``save`` wrote.

    Raises:
        ValueError: the file is not that.
    """
    try:
        return [
            Score(
                row["name"],
                Samples(**row["samples"]),
                Fingerprint(**row["fingerprint"]),
                {name: Estimate(**each) for name, each in row["metrics"].items()},
            )
            for row in json.loads(path.read_text(encoding="utf-8"))["scores"]
        ]
    except (AttributeError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} holds no scores of unnoise: {error}") from error


def table(scores: Sequence[Score], every: bool = True) -> str:
    """The scores for a terminal: one table for each group whose numbers may be compared.

    Each group is headed by its fingerprint; if there are several, the reason follows. Without
    ``every`` metric there are the ``ESSENTIAL`` ones, and the names of the others.
    """
    groups, first = comparable(scores), scores[0]
    names = list(dict.fromkeys(name for score in scores for name in score.metrics))
    left = [] if every else [name for name in names[1:] if name.partition("_")[0] not in ESSENTIAL]
    parts = [_group(group, left) for group in groups]
    if left:
        others = ", ".join(dict.fromkeys(name.partition("_")[0] for name in left))
        parts.append(f"columns=all also shows {others}, which are in the files")
    for other, *_ in groups[1:]:
        why = first.fingerprint.differences(other.fingerprint)[0]
        parts.append(f"{first.name} and {other.name} are not to be compared: {why}")
    return "\n\n".join(parts)


def _group(scores: Sequence[Score], left: Sequence[str]) -> str:
    about = scores[0].fingerprint
    every = dict.fromkeys(name for score in scores for name in score.metrics)
    names = [name for name in every if name not in left]
    cells = [["", "", *(name.partition("_")[0] for name in names)]]
    cells += [["", "evaluations", *("".join(name.partition("_")[1:]) for name in names)]]
    for score in scores:
        cost = score.samples.evaluations
        values = (str(score.metrics.get(name, "")) for name in names)
        cells.append([score.name, "" if cost is None else f"{cost:g}", *values])
    heading = f"{about.count} pictures against {about.reference}"
    by = f"features by {about.extractor}, resized by {about.resize}"
    return "\n".join([heading, by, *folded(cells)])


def folded(rows: Sequence[Sequence[str]], fixed: int = 2, left: Sequence[int] = (0,)) -> list[str]:
    """A table of at most ``WIDTH``: columns without room stand below, beside the fixed ones."""
    first, parts = list(range(fixed)), [list(range(fixed))]

    def part(columns: Sequence[int]) -> list[str]:
        chosen = [[row[column] for column in columns] for row in rows]
        return aligned(chosen, [k for k, column in enumerate(columns) if column in left])

    for column in range(fixed, len(rows[0])):
        if len(parts[-1]) > fixed and max(map(len, part([*parts[-1], column]))) > WIDTH:
            parts.append(first)
        parts[-1] = [*parts[-1], column]
    return "\n\n".join("\n".join(part(columns)) for columns in parts).split("\n")


def aligned(rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> list[str]:
    """The lines of a table for a terminal; the columns ``left`` are aligned to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    aligns = [f"{{:{'<' if k in left else '>'}{width}}}" for k, width in enumerate(widths)]
    return ["  ".join(aligns).format(*row).rstrip() for row in rows]


def flat(score: Score) -> dict[str, Any]:
    """A score as one row of plain values, for CSV; what is nested is left to the JSON."""
    samples = {k: v for k, v in vars(score.samples).items() if not isinstance(v, dict)}
    row = {"name": score.name, **samples, **asdict(score.fingerprint)}
    for name, estimate in score.metrics.items():
        row |= {name: estimate.value, f"{name}_error": estimate.error}
    return row
