"""The data of the charts that the page's script draws."""

import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from unnoise.report.logged import MOST, Curve, thinned
from unnoise.report.page.comparison import kinds
from unnoise.report.reader import Run

NUMBER = r"-?\d+(?:\.\d+)?"
POINTS, FEWEST = 200_000, 40
"""Most points of all curves on a page, and of one curve what is always there."""
TITLES = {
    "train/gradient_norm": "Gradient norm",
    "train/learning_rate": "Learning rate",
    "train/images_per_second": "Images a second",
    "validation/bits_per_dim": "Bits per dimension, validation",
    "quality/seconds": "Seconds that measuring the quality took",
}
FAMILIES = {
    "Loss": ("train/loss", "validation/loss"),
    "Loss by quartile of the training times": ("train/loss_t",),
    "Validation loss by log-SNR": ("validation/loss_snr",),
}
"""Charts of several metrics: two or more names, or one prefix."""


class Chart(NamedTuple):
    """A chart: a function of ``figures.js``, and its data."""

    function: str
    data: Any


def chart(function: str, data: Any) -> Chart:
    """A chart whose data can be written as JSON: null instead of NaN and infinity."""
    return Chart(function, _finite(data))


def _finite(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def curves(runs: Sequence[Run], labels: Sequence[str]) -> Chart | None:
    """All curves, as [run, steps, values] by metric.

    "charts" says which of them one chart shows, on the page of one run; "differ" has the config
    keys for which the values of a metric cannot be compared.
    """
    names = list(dict.fromkeys(name for run in runs for name in sorted(run.curves, key=_rank)))
    if not names:
        return None
    most = max(FEWEST, min(MOST, POINTS // sum(len(run.curves) for run in runs)))
    curves: dict[str, list[Any]] = {name: [] for name in names}
    for k, run in enumerate(runs):
        for name, curve in run.curves.items():
            curves[name].append([k, *packed(curve, most)])
    differ = {name: kinds(runs, name)[1] for name in names}
    data = {"runs": labels, "curves": curves, "differ": differ, "charts": _charts(names)}
    return Chart("curves" if len(runs) == 1 else "overlay", data)


def packed(curve: Curve, most: int = MOST) -> list[list[float | None]]:
    """[steps, values] of a thinned curve; values to six digits, None where not finite."""
    steps, values = thinned(curve, most)
    return [steps.tolist(), [float(f"{v:.6g}") if math.isfinite(v) else None for v in values]]


def _rank(name: str) -> tuple[int, str]:
    """Losses first, then validation, then the rest."""
    order = ("validation/loss", "train/loss")
    if name in order:
        return order.index(name), name
    parts = ("validation", "quality", "train", "")
    return 2 + [name.startswith(part) for part in parts].index(True), name


def _charts(names: Sequence[str]) -> list[dict[str, Any]]:
    """Each metric in one chart: the metrics of a family together, the others alone."""
    charts, left = [], list(names)
    for title, family in FAMILIES.items():
        several = len(family) > 1
        shown = [n for n in (family if several else left) if n in left and n.startswith(family)]
        left = [name for name in left if name not in shown]
        if shown:
            by_bin = sorted(shown, key=lambda n: [float(x) for x in re.findall(NUMBER, n)])
            charts.append({"title": title, "metrics": by_bin})
    for name in left:
        charts.append({"title": TITLES.get(name, name.removeprefix("quality/")), "metrics": [name]})
    return charts
