"""Quality against cost: which settings no other one beats in both."""

from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from unnoise.evaluation.results import Score, lower_is_better
from unnoise.files import write_durably

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Wong's palette, which colour-blind people can tell apart."""
MARKERS = "osD^vPX*"  # another number than of colours, so that 56 lines differ
CLOSEST = 1.15  # ratio of neighbouring ticks
LABELS = {
    "evaluations": "evaluations of the network a picture",
    "seconds": "seconds a picture",
}
"""Of the costs."""


def frontier(scores: Sequence[Score], metric: str, cost: str = "evaluations") -> list[Score]:
    """The Pareto front: scores to which no other is at least equal in both, from cheap to dear.

    Of drawn pictures only, since real ones have no cost.
    """
    sign = 1 if lower_is_better(metric) else -1
    drawn = [s for s in scores if metric in s.metrics and getattr(s.samples, cost) is not None]
    drawn.sort(key=lambda s: (getattr(s.samples, cost), sign * s.metrics[metric].value))
    front: list[Score] = []
    for score in drawn:
        if not front or sign * score.metrics[metric].value < sign * front[-1].metrics[metric].value:
            front.append(score)
    return front


def plot(
    path: Path,
    scores: Sequence[Score],
    metric: str,
    cost: str = "evaluations",
    line_of: Callable[[Score], str | None] = lambda score: score.samples.sampler,
) -> Path:
    """A PNG of a metric against its cost: lines by ``line_of``, the front, real pictures dotted."""
    from matplotlib.figure import Figure  # slow to import
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    def line(row: Sequence[Score]) -> tuple[list[Any], list[float]]:
        return [getattr(s.samples, cost) for s in row], [s.metrics[metric].value for s in row]

    figure = Figure(figsize=(8, 5), dpi=150, layout="constrained")
    axes = figure.subplots()
    drawn = [score for score in scores if getattr(score.samples, cost) is not None]
    drawn.sort(key=lambda score: float(getattr(score.samples, cost)))
    front: dict[str, Any] = {"color": "0.75", "linewidth": 6, "label": "Pareto front", "zorder": 0}
    axes.step(*line(frontier(scores, metric, cost)), where="post", **front)
    names = dict.fromkeys(line_of(score) for score in scores if score in drawn)
    for name, colour, marker in zip(names, cycle(COLOURS), cycle(MARKERS)):
        row = [score for score in drawn if line_of(score) == name]
        bars = [1.96 * (score.metrics[metric].error or 0) for score in row]
        style: dict[str, Any] = {"color": colour, "marker": marker, "capsize": 2}
        style |= {"linewidth": 1.2, "markersize": 5}
        axes.errorbar(*line(row), yerr=bars, label=str(name), **style)
    for score in scores:
        if score.samples.kind == "real" and score.fingerprint == scores[0].fingerprint:
            value = score.metrics[metric].value
            axes.axhline(value, color="0.3", linestyle=":", label="real pictures")
    costs, values = line(drawn)
    axes.set_xscale("log")
    if min(values) > 0:
        axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        if axis.get_scale() == "log":
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axis.set_minor_formatter(NullFormatter())
    if cost == "evaluations":
        ticks = _apart(set(costs))
        axes.set_xticks(ticks, [f"{each:g}" for each in ticks])
        axes.minorticks_off()
    axes.set_xlabel(LABELS[cost])
    better = "less" if lower_is_better(metric) else "more"
    axes.set_ylabel(f"{metric} ({better} is better)")
    about = scores[0].fingerprint
    against = f"{about.count} pictures against {about.reference} by {about.extractor}"
    axes.set_title(f"{against}; bars: 95 % intervals", fontsize=9)
    axes.grid(color="0.92")
    axes.legend(frameon=False, fontsize=9)
    write_durably(path, lambda temporary: figure.savefig(temporary, format="png"))
    return path


def _apart(costs: set[float]) -> list[float]:
    """Of costs, from dear to cheap, those that leave room for their labels on a log axis."""
    kept: list[float] = []
    for each in sorted(costs, reverse=True):
        if not kept or kept[-1] / each > CLOSEST:
            kept.append(each)
    return kept
