"""The parts of a page that tell how good pictures are."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from unnoise.evaluation.frontier import frontier
from unnoise.evaluation.results import Estimate, Fingerprint, Score, comparable, lower_is_better
from unnoise.report.charts import chart
from unnoise.report.html import (
    Cell,
    Column,
    Html,
    breakable,
    details,
    element,
    facts,
    joined,
    note,
    number,
    percent,
    section,
    table,
    uncertain,
)
from unnoise.report.runs import Run, Table

COSTS = {"evaluations": "evaluations a picture", "seconds": "seconds a picture"}
"""What drawing cost, and its heading."""
SETTINGS = {
    "step": "checkpoint",
    "averaged": "averaging",
    "sampler": "sampler",
    "steps": "steps",
    "guidance": "guidance",
    "precision": "precision",
    "seed": "seed",
}
"""What is told of drawn pictures, and its heading."""
CONTROLS = ("real", "noise")
"""Kinds of pictures that are scored for comparison only."""

Owned = tuple[str, Score]
"""A run's label, and a score of it."""


def evaluations(runs: Sequence[Run], labels: Sequence[str]) -> list[Html]:
    """Qualities, a leaderboard for each fingerprint, and what else was measured."""
    parts = list(_qualities(owned_scores(runs, labels), len(runs) > 1))
    for run, label in zip(runs, labels, strict=True):
        for each in run.tables:
            if len(runs) > 1:
                parts.append(details(f"{label}: {each.measure}", _rows(each)))
            else:
                parts.append(joined([element("h3", {}, each.measure.capitalize()), _rows(each)]))
    return [section("Evaluation", "evaluation", *parts)] if parts else []


def owned_scores(runs: Sequence[Run], labels: Sequence[str]) -> list[Owned]:
    """All scores of the runs, each once; those for comparison belong to no run."""
    told: list[Owned] = []
    for run, label in zip(runs, labels, strict=True):
        for score in run.scores:
            owned = ("–" if score.pictures.get("kind") in CONTROLS else label, score)
            if score.metrics and owned not in told:
                told.append(owned)
    return told


def groups(owned: Sequence[Owned]) -> list[tuple[Fingerprint, list[Owned]]]:
    """The scores whose numbers may be compared, with their fingerprint."""
    fingerprints = [group[0].fingerprint for group in comparable([score for _, score in owned])]
    return [(each, [o for o in owned if o[1].fingerprint == each]) for each in fingerprints]


def metrics(group: Sequence[Owned]) -> list[str]:
    """The names of all metrics that some score of a group has."""
    return list(dict.fromkeys(name for _, score in group for name in score.metrics))


def _qualities(owned: Sequence[Owned], many: bool) -> Iterator[Html]:
    told = groups(owned)
    if len(told) > 1:
        yield note(
            f"The numbers were measured in {len(told)} ways that cannot be compared. "
            "Each has a table of its own, and nothing is ranked across them."
        )
    for k, (fingerprint, group) in enumerate(told):
        title = f"Quality, table {k + 1}" if len(told) > 1 else "Quality"
        yield element("h3", {}, title)
        yield note(
            f"{fingerprint.count:,} pictures each, held against {fingerprint.reference}; features "
            f"by {fingerprint.extractor}, resize {fingerprint.resize}. ± is one standard error; "
            "the best value of a column is bold."
        )
        for j, (other, _) in enumerate(told[:k]):
            why = "; ".join(other.differences(fingerprint))
            yield note(f"Not ranked against table {j + 1}: {why}.")
        yield _leaderboard(group, many)
        if any(cost in score.pictures for _, score in group for cost in COSTS):
            yield chart("cost", cost_data(group))


def _leaderboard(group: Sequence[Owned], many: bool) -> Html:
    """The best by the first metric first; settings that all share stand below."""
    names = metrics(group)
    best = {name: _best(name, group) for name in names}
    told = {key: [score.pictures.get(key) for _, score in group] for key in SETTINGS}
    vary = [k for k, values in told.items() if len(set(map(str, _drawn(group, values)))) > 1]
    costs = [key for key in COSTS if any(key in score.pictures for _, score in group)]
    lines = sorted(group, key=lambda owned: _place(owned[1], names[0]))
    columns = [
        *([Column("run")] if many else []),
        Column("pictures"),
        *(Column(COSTS[key], order=1) for key in costs),
        *(Column(name, order=1 if lower_is_better(name) else -1) for name in names),
        *(Column(SETTINGS[key]) for key in vary),
    ]
    rows = []
    for label, score in lines:
        cells = [Cell(breakable(label), label if label != "–" else None)] if many else []
        mark = "control" if score.pictures.get("kind") in CONTROLS else None
        cells.append(Cell(score.name, score.name, mark))
        cells += [_setting(score.pictures.get(key)) for key in costs]
        for name in names:
            estimate = score.metrics.get(name)
            mark = "best" if estimate is not None and estimate.value == best[name] else None
            cells.append(Cell("–") if estimate is None else _estimate(estimate, mark))
        cells += [_setting(score.pictures.get(key)) for key in vary]
        rows.append(cells)
    shared = [
        f"{SETTINGS[key]} {_setting(_drawn(group, told[key])[0]).shown}"
        for key in SETTINGS
        if key not in vary and any(value is not None for value in told[key])
    ]
    below = note("All were drawn with " + ", ".join(shared) + ".") if shared else Html()
    return joined([table(columns, rows), below])


def _drawn(group: Sequence[Owned], values: Sequence[Any]) -> list[Any]:
    """Of values of each score, those of pictures that are not for comparison only."""
    kept = [
        value
        for (_, score), value in zip(group, values, strict=True)
        if score.pictures.get("kind") not in CONTROLS
    ]
    return kept or [None]


def _place(score: Score, metric: str) -> float:
    """Less is better, and infinity the last."""
    value = score.metrics[metric].value if metric in score.metrics else math.nan
    sign = 1 if lower_is_better(metric) else -1
    return sign * value if math.isfinite(value) else math.inf


def _best(name: str, group: Sequence[Owned]) -> float | None:
    values = [
        score.metrics[name].value
        for _, score in group
        if math.isfinite(_place(score, name)) and score.pictures.get("kind") not in CONTROLS
    ]
    return (min if lower_is_better(name) else max)(values, default=None)


def _setting(value: Any) -> Cell:
    return Cell(number(value), value if isinstance(value, int | float | str) else None)


def _estimate(estimate: Estimate, mark: str | None) -> Cell:
    return Cell(uncertain(estimate.value, estimate.error), estimate.value, mark)


def cost_data(group: Sequence[Owned]) -> dict[str, Any]:
    """Points of quality against cost, and the Pareto front (numbers of points) of each pair.

    A series is what one run drew, or if there is one only, one sampler.
    """
    scores = [score for _, score in group]
    several = len({label for label, _ in group} - {"–"}) > 1
    costs = [cost for cost in COSTS if any(cost in score.pictures for score in scores)]
    return {
        "costs": {cost: COSTS[cost] for cost in costs},
        "metrics": {name: lower_is_better(name) for name in metrics(group)},
        "points": [
            {
                "name": f"{label}, {score.name}" if several else score.name,
                "series": label if several else str(score.pictures.get("sampler", score.name)),
                "sampler": str(score.pictures.get("sampler", score.name)),
                "kind": score.pictures.get("kind", "drawn"),
                **{cost: score.pictures.get(cost) for cost in costs},
                "values": {k: [each.value, each.error] for k, each in score.metrics.items()},
            }
            for label, score in group
        ],
        "fronts": {
            f"{metric} {cost}": [
                scores.index(each) for each in frontier(_sound(scores, metric), metric, cost)
            ]
            for metric in metrics(group)
            for cost in costs
        },
    }


def _sound(scores: Sequence[Score], metric: str) -> list[Score]:
    return [score for score in scores if math.isfinite(_place(score, metric))]


def _rows(told: Table) -> Html:
    """Another evaluation, as a table of its rows."""
    keys = list(dict.fromkeys(key for row in told.rows for key in row))
    rows = [[_cell(key, row.get(key)) for key in keys] for row in told.rows]
    return joined(
        [
            table([Column(key) for key in keys], rows),
            details("How it was measured", facts({k: _plain(v) for k, v in told.about.items()})),
        ]
    )


def _cell(key: str, value: Any) -> Cell:
    if isinstance(value, float) and key in ("share", "low", "high"):
        return Cell(percent(value), value)
    return _setting(value)


def _plain(value: Any) -> str:
    """A setting as text; a node by its leaves."""
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_plain(v)}" for k, v in value.items()) or "–"
    return number(value)
