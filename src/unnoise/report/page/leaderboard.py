"""Many runs in one table, with the config keys in which they differ."""

from collections.abc import Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from unnoise.evaluation.results import lower_is_better
from unnoise.report.page.about import head, quality_metrics, state_text, steps, when
from unnoise.report.page.comparison import columns, kinds
from unnoise.report.page.table import Cell, Column, best, duration
from unnoise.report.reader import Run
from unnoise.runs.layout import RunDirectory


def leaderboard(runs: Sequence[Run], labels: Sequence[str], page: Path) -> dict[str, Any]:
    """The "columns", a row for each run, and "kinds": why not all values may be compared."""
    pages = [RunDirectory(run.folder).report for run in runs]
    files = [
        own if own.exists() and own != page else run.folder
        for run, own in zip(runs, pages, strict=True)
    ]
    names = [Cell(label, file=file) for label, file in zip(labels, files, strict=True)]
    states = [Cell(run.state, state_text(run)) for run in runs]
    table = [Column("run", names, style="breakable"), Column("state", states, style="state")]
    groupings: list[list[int]] = []
    reasons = []
    for metric in quality_metrics(runs):
        numbers, differ = kinds(runs, metric)
        if max(numbers) > 0 and numbers not in groupings:
            groupings.append(numbers)
            letters = [Cell(ascii_uppercase[kind % 26] * (1 + kind // 26)) for kind in numbers]
            table.append(Column("kind", letters))
            values = "Losses" if "loss" in metric else f"Values of {head(metric)}"
            reasons.append((values, max(numbers) + 1, ", ".join(differ)))
        table.append(_metric(runs, metric, numbers))
    newest = [next(reversed(RunDirectory(run.folder).saved()), None) for run in runs]
    table += [
        Column("images/s", [Cell(run.speed) for run in runs], -1),
        Column("took", [Cell(run.seconds, duration(run.seconds)) for run in runs], 1),
        *(Column(key, [Cell(each) for each in values]) for key, values in columns(runs).items()),
        Column("steps", [Cell(run.step, steps(run)) for run in runs]),
        Column("parameters", [Cell(run.manifest.get("parameters")) for run in runs]),
        Column("started", [Cell(r.started and r.started.timestamp(), when(r)) for r in runs]),
        Column("newest checkpoint", [Cell(None, f.name if f else "–", file=f) for f in newest]),
    ]
    return {"columns": table, "kinds": reasons}


def _metric(runs: Sequence[Run], metric: str, groups: Sequence[int]) -> Column:
    """The last values of a metric; the best of each group of two or more is marked."""
    lower = "loss" in metric or lower_is_better(metric.rpartition("/")[2])
    values = list(zip(groups, (run.last(metric) for run in runs), strict=True))
    of: dict[int, list[float | None]] = {}
    for group, value in values:
        of.setdefault(group, []).append(value)
    tops = {group: best(members, lower, 2) for group, members in of.items()}
    cells = [
        Cell(value, mark=None if value is None or value != tops[group] else "best", kind=group)
        for group, value in values
    ]
    return Column(head(metric), cells, 1 if lower else -1)
