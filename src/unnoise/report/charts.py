"""Figures that the page's script draws, each with its data beside it."""

import json
import math
import re
from collections.abc import Sequence
from typing import Any

from unnoise.report.comparison import kinds
from unnoise.report.curves import packed
from unnoise.report.html import Html, element
from unnoise.report.runs import Run

POINTS = 200_000
"""Of all curves of a page, at most."""
TITLES = {
    "train/gradient_norm": "Gradient norm",
    "train/learning_rate": "Learning rate",
    "train/images_per_second": "Images a second",
    "validation/bits_per_dim": "Bits per dimension, validation",
    "quality/seconds": "Seconds that measuring the quality took",
}
FAMILIES = {
    "Loss": ("train/loss", "validation/loss"),
    "Loss by quartile of t": ("train/loss_t",),
    "Validation loss by log-SNR": ("validation/loss_snr",),
}
"""Charts of several metrics: of names, or of all that begin so."""


def chart(kind: str, data: Any) -> Html:
    """A place for a figure of the script's ``kind``, and what it is drawn from."""
    text = json.dumps(_finite(data), separators=(",", ":"), ensure_ascii=False)
    harmless = Html(text.replace("<", "\\u003c"))  # nothing in it can end the script element
    script = element("script", {"type": "application/json"}, harmless)
    lost = element("noscript", {}, element("p", {"class": "note"}, "Charts need JavaScript."))
    return element("div", {"class": "figure", "data-figure": kind}, script, lost)


def _finite(data: Any) -> Any:
    """Numbers that JSON does not know become null."""
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def curve_data(runs: Sequence[Run], labels: Sequence[str]) -> dict[str, Any]:
    """All curves, as [run, steps, values] by metric, and which of them one chart shows of a run.

    "differ" has the keys that keep a metric's values from comparing.
    """
    names = list(dict.fromkeys(name for run in runs for name in sorted(run.curves, key=_rank)))
    count = sum(len(run.curves) for run in runs)
    most = max(100, min(1000, POINTS // max(1, count)))
    return {
        "runs": list(labels),
        "curves": {
            name: [
                [k, *packed(run.curves[name], most)]
                for k, run in enumerate(runs)
                if name in run.curves
            ]
            for name in names
        },
        "differ": {name: kinds(runs, name)[1] for name in names},
        "charts": _charts(names),
    }


def _rank(name: str) -> tuple[int, str]:
    """Losses first, then what is validated, then the rest."""
    order = ("validation/loss", "train/loss")
    if name in order:
        return order.index(name), name
    parts = ("validation", "quality", "train", "")
    return 2 + [name.startswith(part) for part in parts].index(True), name


def _charts(names: Sequence[str]) -> list[dict[str, Any]]:
    """Each metric in one chart: those of a family together, the others alone."""
    charts, left = [], list(names)
    for title, family in FAMILIES.items():
        several = len(family) > 1
        shown = [n for n in (family if several else left) if n in left and n.startswith(family)]
        left = [name for name in left if name not in shown]
        if shown:
            charts.append({"title": title, "metrics": sorted(shown, key=_numbers)})
    for name in left:
        charts.append({"title": TITLES.get(name, name.removeprefix("quality/")), "metrics": [name]})
    return charts


def _numbers(name: str) -> list[float]:
    """Those in a name, so that bins stand in their order."""
    return [float(each) for each in re.findall(r"-?\d+(?:\.\d+)?", name)]


def sweep_metrics(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The last value of each metric in each run, with its kind: [run, value, kind]."""
    names = sorted({name for run in runs for name in run.curves}, key=_rank)
    told = []
    for name in names:
        groups, keys = kinds(runs, name)
        points = [
            [k, value, groups[k]]
            for k, run in enumerate(runs)
            if (value := run.last(name)) is not None
        ]
        told.append({"name": name, "points": points, "differ": keys})
    return told
