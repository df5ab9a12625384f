"""The parts of a page that hold runs against each other."""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from unnoise.evaluation.results import lower_is_better
from unnoise.report.charts import chart, sweep_metrics
from unnoise.report.comparison import columns, differences, kinds, leaves, shown
from unnoise.report.evaluations import CONTROLS, groups, metrics, owned_scores
from unnoise.report.html import (
    Cell,
    Column,
    Html,
    breakable,
    duration,
    element,
    joined,
    note,
    number,
    section,
    table,
)
from unnoise.report.overview import link, state, when
from unnoise.report.runs import Run, started

BITS = "validation/bits_per_dim"
LOSSES = {"validation/loss": "validation loss", "train/loss": "loss"}


def leaderboard(runs: Sequence[Run], labels: Sequence[str], page: Path) -> list[Html]:
    """A line for each run; what is not comparable is put in order within its kind only."""
    told = columns(runs)
    names = _judging(runs)
    groupings = {name: kinds(runs, name) for name in names}
    heads = [Column("run"), Column("state")]
    notes: list[Html] = []
    lettered: list[str] = []
    for name in names:
        letters, differ = groupings[name]
        if max(letters) > 0 and letters not in [groupings[other][0] for other in lettered]:
            lettered.append(name)
            heads.append(Column("kind"))
            notes.append(_why(name, letters, differ))
        heads.append(Column(_head(name), _order(name), letters))
    heads += [
        *(Column("images/s", -1), Column("took", 1)),
        *(Column(key) for key in told),
        *(Column("steps"), Column("parameters"), Column("started"), Column("newest checkpoint")),
    ]
    rows = []
    for k, (run, label) in enumerate(zip(runs, labels, strict=True)):
        own = run.folder / "report.html"
        name = link(own if own.exists() and own != page else run.folder, page, breakable(label))
        cells = [Cell(name, label), Cell(state(run), run.state)]
        for metric in names:
            letters = groupings[metric][0]
            if metric in lettered:
                cells.append(Cell(_letter(letters[k]), _letter(letters[k])))
            cells.append(_cell(run.last(metric), _mark(runs, metric, letters, k)))
        newest, moment = run.checkpoints[-1:], started(run)
        cells += [
            *(_cell(run.speed), Cell(duration(run.seconds), run.seconds)),
            *(_cell(values[k]) for values in told.values()),
            Cell(f"{run.step:,}" + (f" of {run.steps:,}" if run.steps else ""), run.step),
            _cell(run.manifest.get("parameters")),
            Cell(when(run), moment.timestamp() if moment else None),
            Cell(link(newest[0], page, newest[0].name) if newest else "–"),
        ]
        rows.append(cells)
    hint = note("A click on a heading sorts. The best value of a column, or of a kind, is bold.")
    return [section("Runs", "runs", hint, *notes, table(heads, rows))]


def _judging(runs: Sequence[Run]) -> list[str]:
    """The metrics that say how good a run is."""
    losses = [name for name in LOSSES if any(name in run.curves for run in runs)]
    told = {name for run in runs for name in run.curves if name.startswith("quality/")}
    told |= {BITS} if any(BITS in run.curves for run in runs) else set()
    return losses + sorted(told - {"quality/seconds"})


def _why(metric: str, groups: Sequence[int], differ: Sequence[str]) -> Html:
    """Why not all values of a metric compare."""
    what = "Losses" if "loss" in metric else f"Values of {_head(metric)}"
    return note(
        f"{what} are of {max(groups) + 1} kinds, by letter, which do not compare since the runs "
        f"differ in {', '.join(differ)}. They are put in order within each kind only."
    )


def _head(metric: str) -> str:
    return LOSSES.get(metric, metric.removeprefix("quality/").removeprefix("validation/"))


def _order(metric: str) -> int:
    return 1 if "loss" in metric or lower_is_better(_head(metric)) else -1


def _letter(kind: int) -> str:
    return ascii_uppercase[kind % 26] * (1 + kind // 26)


def _mark(runs: Sequence[Run], metric: str, groups: Sequence[int], k: int) -> str | None:
    """Whether a run's value is the best of those it may be compared with, if there are others."""
    values = [
        value
        for run, kind in zip(runs, groups, strict=True)
        if kind == groups[k] and (value := run.last(metric)) is not None and math.isfinite(value)
    ]
    best = (min if _order(metric) == 1 else max)(values, default=None)
    return "best" if len(values) > 1 and runs[k].last(metric) == best else None


def _cell(value: Any, mark: str | None = None) -> Cell:
    return Cell(number(value), value if isinstance(value, int | float | str) else None, mark)


def sweep(runs: Sequence[Run], labels: Sequence[str]) -> list[Html]:
    """A metric against a key that the runs differ in; first those that say how good a run is."""
    keys, judging = columns(runs), _judging(runs)
    told = _evaluated(runs)
    told += sorted(
        sweep_metrics(runs), key=lambda each: (each["name"] not in judging, bool(each["differ"]))
    )
    if not keys or not told:
        return []
    data = {"runs": list(labels), "keys": keys, "metrics": told}
    early = sum(run.state != "finished" for run in runs)
    verb = "is" if early == 1 else "are"
    unfinished = note(
        f"{early} of {len(runs)} runs {verb} not finished: their values are early ones."
    )
    parts = [chart("sweep", data), unfinished if early else Html()]
    return [section("A metric against a key", "sweep", *parts)]


def _evaluated(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Qualities that several runs have: each of one way to draw, if runs drew in several ways."""
    told: list[dict[str, Any]] = []
    tables = groups(owned_scores(runs, [str(k) for k in range(len(runs))]))
    for place, (_, group) in enumerate(tables):
        drawn = [(int(k), s) for k, s in group if s.pictures.get("kind") not in CONTROLS]
        once = len({k for k, _ in drawn}) == len(drawn)
        for name in metrics(group):
            for way in dict.fromkeys("" if once else f", {score.name}" for _, score in drawn):
                points = [
                    [k, score.metrics[name].value, 0]
                    for k, score in drawn
                    if name in score.metrics and way in ("", f", {score.name}")
                ]
                of = f" (table {place + 1})" if len(tables) > 1 else ""
                if len({k for k, *_ in points}) > 1:
                    told.append({"name": f"{name}{way}{of}", "points": points, "differ": []})
    return told


def config_differences(runs: Sequence[Run], labels: Sequence[str]) -> list[Html]:
    """Key by run: those that differ, and for a switch the others; what is rare is marked."""
    differ = differences(runs)
    flat = [dict(leaves(run.config)) for run in runs]
    rows = []
    for key in dict.fromkeys(key for each in flat for key in each):
        values = [shown(each[key]) if key in each else "" for each in flat]
        usual = Counter(values).most_common(1)[0]
        cells = [
            element("td", {"class": "rare" if value != usual[0] else None}, breakable(value or "–"))
            for value in values
        ]
        hidden = {} if key in differ else {"class": "same", "hidden": ""}
        rows.append(element("tr", hidden, element("th", {"scope": "row"}, key), *cells))
    if not rows:
        return []
    heads = [element("th", {"scope": "col"}, breakable(head)) for head in ("key", *labels)]
    switch = element("label", {"class": "switch", "hidden": ""}, _box(), f" all {len(rows)} keys")
    told = f"{len(differ)} keys differ." if differ else "All keys agree."
    whole = joined([element("thead", {}, element("tr", {}, *heads)), element("tbody", {}, *rows)])
    box = element("div", {"class": "scroll tall"}, element("table", {"class": "config"}, whole))
    return [section("Differences of the configs", "config", note(told), switch, box)]


def _box() -> Html:
    return element("input", {"type": "checkbox"})
