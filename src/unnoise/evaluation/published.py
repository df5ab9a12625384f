"""Reference numbers of a recipe, and how a run of ours compares with them."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from unnoise.config.compose import CONF
from unnoise.config.problems import ConfigError, did_you_mean
from unnoise.evaluation.results import Estimate, Score, aligned, read
from unnoise.runs.identity import digest
from unnoise.runs.wanted import Part, Wanted
from unnoise.untrusted import load_yaml

NEAR = 3.0
"""Standard errors within which ours counts as the published number."""


@dataclass(frozen=True, kw_only=True)
class Expected:
    """A published number, its standard error (0: the source gives none), and where it stands."""

    value: float
    error: Annotated[float, Field(ge=0)] = 0.0
    source: str


@dataclass(frozen=True, kw_only=True)
class Point:
    """A moment of the training, as a share of its steps, and what is measured then.

    ``measure`` are overrides of unnoise-evaluate; ``expected`` by the names of metrics.
    """

    share: Part
    measure: list[str]
    expected: dict[str, Expected]


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A file of ``conf/published``: a run, and what is expected of it along the way.

    ``about`` is a line on the recipe and on what it lacks of the paper's.
    """

    about: str
    run: Wanted
    points: Annotated[list[Point], Field(min_length=1)]


def references(folders: list[Path]) -> dict[str, Path]:
    """The files of all references: the shipped ones, and those of further folders of configs."""
    files = [path for each in (CONF, *folders) for path in sorted(each.glob("published/*.yaml"))]
    return {path.stem: path for path in files}


def reference(name: str, folders: list[Path]) -> Reference:
    """The reference of a name; ConfigError if there is none, or it is not right."""
    known = references(folders)
    if name not in known:
        near = did_you_mean(name, known)
        raise ConfigError(f"there is no reference {name}{near} ({', '.join(sorted(known))})")
    try:
        return TypeAdapter(Reference).validate_python(load_yaml(known[name]))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{known[name]}: {where}: {first['msg'].lower()}") from error


@dataclass(frozen=True)
class Compared:
    """A metric of ours beside the published one, if there is one."""

    share: float
    step: int
    metric: str
    ours: Estimate
    paper: Expected | None

    @property
    def difference(self) -> float | None:
        """(ours − paper)/√(s² + S²) with the standard errors of both; None without any error."""
        if self.paper is None:
            return None
        error = math.hypot(self.ours.error or 0, self.paper.error)
        return (self.ours.value - self.paper.value) / error if error else None

    @property
    def cells(self) -> tuple[str, ...]:
        """Of a table."""
        paper = "" if self.paper is None else str(Estimate(self.paper.value, self.paper.error))
        off = self.difference
        verdict = "" if off is None else "as published" if abs(off) <= NEAR else "not as published"
        apart = "" if off is None else f"{off:+.1f}"
        share = f"{100 * self.share:g} %"
        return share, str(self.step), self.metric, paper, str(self.ours), apart, verdict


def compared(point: Point, step: int, score: Score) -> list[Compared]:
    """The metrics of a point: those with a published number, or where it has none the first."""
    names = point.expected or dict.fromkeys([*score.metrics][:1])
    if missing := [name for name in names if name not in score.metrics]:
        raise ConfigError(f"{missing[0]} was not measured, but {', '.join(score.metrics)}")
    return [
        Compared(point.share, step, name, score.metrics[name], point.expected.get(name))
        for name in names
    ]


def table(rows: list[Compared]) -> str:
    """For a terminal, with the sources below."""
    head = ("share", "step", "number", "published", "ours", "difference in s.e.", "")
    lines = aligned([head, *(row.cells for row in rows)], left=(2, 6))
    sources = {row.metric: row.paper.source for row in rows if row.paper is not None}
    return "\n".join([*lines, *(f"{name}: {source}" for name, source in sources.items())])


def kept(run: Path, point: Point, step: int) -> Path:
    """Where the result of a point is."""
    return run / "evaluation" / f"reproduced_{step:08d}_{digest(point.measure, 8)}.json"


def measured(run: Path, point: Point, step: int) -> Score | None:
    """What was measured at a point before."""
    path = kept(run, point, step)
    return read(path)[0] if path.exists() else None
