"""What was evaluated: qualities of drawn pictures, and other measurements."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from unnoise.evaluation.frontier import frontier
from unnoise.evaluation.results import Fingerprint, Score, comparable, lower_is_better
from unnoise.report.page.charts import Chart, chart
from unnoise.report.page.samples import BUDGET, Picture, picture, still
from unnoise.report.page.table import Cell, Column, best, number, with_error
from unnoise.report.reader import Run, Table

COSTS = {"evaluations": "evaluations a picture", "seconds": "seconds a picture"}
"""The costs of drawing, and their headings."""
SETTINGS = {"step": "checkpoint", "averaged": "averaging"} | {
    name: name for name in ("sampler", "steps", "guidance", "precision", "seed")
}
"""The settings of drawing, and their headings."""
SHEET = 600_000  # bytes of a picture with letters, where there are few
Owned = tuple[str, Score]
"""The label of a run, and a score of it."""


class QualityTable(NamedTuple):
    """A table of comparable scores; ``apart`` says why they are not in the tables before."""

    fingerprint: Fingerprint
    columns: list[Column]
    shared: str
    apart: list[str]
    cost: Chart | None


class Measured(NamedTuple):
    """Another measurement, such as adherence or likelihood; ``pictures`` are one or none."""

    run: str
    name: str
    columns: list[Column]
    settings: dict[str, str]
    pictures: list[Picture]


def evaluations(runs: Sequence[Run], labels: Sequence[str]) -> dict[str, list[Any]] | None:
    """A "qualities" table for each fingerprint, and other "measures"."""
    scores: list[Owned] = []  # each once; controls belong to no run
    for run, label in zip(runs, labels, strict=True):
        for score in run.scores:
            owned = ("–" if score.samples.is_control else label, score)
            if score.metrics and owned not in scores:
                scores.append(owned)
    tables = groups(scores)
    qualities = [
        QualityTable(
            fingerprint,
            *_quality_table(group, len(runs) > 1),
            ["; ".join(other.differences(fingerprint)) for other, _ in tables[:k]],
            chart("cost", cost_data(group)) if _costs([score for _, score in group]) else None,
        )
        for k, (fingerprint, group) in enumerate(tables)
    ]
    large = min(SHEET, BUDGET // max(1, sum(len(run.tables) for run in runs)))
    measures = [
        _measure(run, label, table, large)
        for run, label in zip(runs, labels, strict=True)
        for table in run.tables
    ]
    return {"qualities": qualities, "measures": measures} if qualities or measures else None


def groups(owned: Sequence[Owned]) -> list[tuple[Fingerprint, list[Owned]]]:
    """The scores that may be compared with each other, and their fingerprint."""
    fingerprints = [group[0].fingerprint for group in comparable([score for _, score in owned])]
    return [(each, [o for o in owned if o[1].fingerprint == each]) for each in fingerprints]


def metric_names(group: Sequence[Owned]) -> list[str]:
    """The names of all metrics of a group."""
    return list(dict.fromkeys(name for _, score in group for name in score.metrics))


def _quality_table(group: Sequence[Owned], many: bool) -> tuple[list[Column], str]:
    """Columns, best first by the first metric; and the settings that all drawn pictures share."""
    names = metric_names(group)
    group = sorted(group, key=lambda owned: _order(owned[1], names[0]))
    scores = [score for _, score in group]
    drawn = [score for score in scores if not score.samples.is_control]
    settings = {key: [getattr(score.samples, key) for score in drawn] for key in SETTINGS}
    vary = [key for key, values in settings.items() if len(set(map(str, values))) > 1]
    shared = [
        f"{SETTINGS[key]} {number(values[0])}"
        for key, values in settings.items()
        if key not in vary and any(value is not None for value in values)
    ]

    def column(key: str, head: str, order: int = 0) -> Column:
        return Column(head, [Cell(getattr(score.samples, key)) for score in scores], order)

    owners = [Cell(None if label == "–" else label) for label, _ in group]
    names_of = [Cell(score.name, mark=None if score in drawn else "control") for score in scores]
    columns = [
        *([Column("run", owners, style="breakable")] if many else []),
        Column("pictures", names_of),
        *(column(key, COSTS[key], 1) for key in _costs(scores)),
        *(_metric(name, scores, drawn) for name in names),
        *(column(key, SETTINGS[key]) for key in vary),
    ]
    return columns, ", ".join(shared)


def _metric(name: str, scores: Sequence[Score], drawn: Sequence[Score]) -> Column:
    """A metric of all scores; the best of the drawn ones is marked."""
    lower = lower_is_better(name)
    top = best([s.metrics[name].value for s in drawn if name in s.metrics], lower)
    found = [score.metrics.get(name) for score in scores]
    cells = [
        Cell(e.value, with_error(e.value, e.error), "best" if e.value == top else None)
        if e
        else Cell()
        for e in found
    ]
    return Column(name, cells, 1 if lower else -1)


def _order(score: Score, metric: str) -> float:
    """A number to sort by: less is better, and infinity is last."""
    value = score.metrics[metric].value if metric in score.metrics else math.nan
    sign = 1 if lower_is_better(metric) else -1
    return sign * value if math.isfinite(value) else math.inf


def _costs(scores: Sequence[Score]) -> list[str]:
    """The costs that any of the scores has."""
    return [cost for cost in COSTS if any(getattr(s.samples, cost) is not None for s in scores)]


def cost_data(group: Sequence[Owned]) -> dict[str, Any]:
    """Points of quality against cost, and the Pareto front (numbers of points) of each pair.

    A series holds what one run drew; if there is only one run, what one sampler drew.
    """
    scores = [score for _, score in group]
    several = len({label for label, _ in group} - {"–"}) > 1
    costs = _costs(scores)
    names = metric_names(group)
    finite = {m: [s for s in scores if math.isfinite(_order(s, m))] for m in names}
    return {
        "costs": {cost: COSTS[cost] for cost in costs},
        "metrics": {name: lower_is_better(name) for name in names},
        "points": [
            {
                "name": f"{label}, {score.name}" if several else score.name,
                "series": label if several else score.samples.sampler or score.name,
                "sampler": score.samples.sampler or score.name,
                "kind": score.samples.kind,
                **{cost: getattr(score.samples, cost) for cost in costs},
                "values": {k: [each.value, each.error] for k, each in score.metrics.items()},
            }
            for label, score in group
        ],
        "fronts": {
            f"{name} {cost}": [scores.index(s) for s in frontier(finite[name], name, cost)]
            for name in names
            for cost in costs
        },
    }


def _measure(run: Run, label: str, table: Table, large: int) -> Measured:
    """A table with its picture, of at most about ``large`` bytes."""

    def cell(key: str, value: Any) -> Cell:
        percent = isinstance(value, float) and key in ("share", "low", "high")
        return Cell(value, f"{100 * value:.1f} %" if percent else None)

    keys = dict.fromkeys(key for row in table.rows for key in row)
    columns = [Column(key, [cell(key, row.get(key)) for row in table.rows]) for key in keys]
    settings = {key: _plain(value) for key, value in table.about.items()}
    shown: list[Picture] = []
    if table.picture is not None:
        title = f"{table.measure}, on one sheet"
        shown = picture(run, table.picture, title, partial(still, large=large))
    return Measured(label, table.measure, columns, settings, shown)


def _plain(value: Any) -> str:
    """A setting as text; a node with its leaves."""
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_plain(v)}" for k, v in value.items()) or "–"
    return number(value)
