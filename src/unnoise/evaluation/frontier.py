"""Quality against cost: which settings no other one beats in both."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unnoise.evaluation.results import Score, lower_is_better
from unnoise.files import write_durably

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Wong's palette, which colour-blind people can tell apart."""
MARKERS = "osD^vPX"
CLOSEST = 1.15  # ratio of neighbouring ticks


def frontier(scores: Sequence[Score], metric: str, cost: str = "evaluations") -> list[Score]:
    """The Pareto front: scores to which no other is at least equal in both, from cheap to dear.

    Of drawn pictures only, since real ones have no cost.
    """
    sign = 1 if lower_is_better(metric) else -1
    drawn = [s for s in scores if metric in s.metrics and _cost(s, cost) is not None]
    drawn.sort(key=lambda s: (_cost(s, cost), sign * s.metrics[metric].value))
    front: list[Score] = []
    for score in drawn:
        if not front or sign * score.metrics[metric].value < sign * front[-1].metrics[metric].value:
            front.append(score)
    return front


def plot(path: Path, scores: Sequence[Score], metric: str, cost: str = "evaluations") -> Path:
    """A PNG of a metric against the cost: a line a sampler, the front, real pictures dotted."""
    from matplotlib.figure import Figure  # slow to import
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    figure = Figure(figsize=(8, 5), dpi=150, layout="constrained")
    axes = figure.subplots()
    lines: dict[str, list[Score]] = {}
    for score in scores:
        if _cost(score, cost) is not None:
            lines.setdefault(str(score.samples.sampler), []).append(score)
    front = frontier(scores, metric, cost)
    axes.step(
        [_cost(score, cost) for score in front],
        [score.metrics[metric].value for score in front],
        where="post",
        color="0.75",
        linewidth=6,
        label="Pareto front",
        zorder=0,
    )
    for number, (sampler, row) in enumerate(lines.items()):
        row.sort(key=lambda score: _cost(score, cost))
        axes.errorbar(
            [_cost(score, cost) for score in row],
            [score.metrics[metric].value for score in row],
            yerr=[1.96 * (score.metrics[metric].error or 0) for score in row],
            color=COLOURS[number % len(COLOURS)],
            marker=MARKERS[number % len(MARKERS)],
            capsize=2,
            linewidth=1.2,
            markersize=5,
            label=sampler,
        )
    for score in scores:
        if score.samples.kind == "real" and score.fingerprint == scores[0].fingerprint:
            axes.axhline(
                score.metrics[metric].value, color="0.3", linestyle=":", label="real pictures"
            )
    axes.set_xscale("log")
    ticks = _apart({_cost(score, cost) for row in lines.values() for score in row})
    axes.set_xticks(ticks, [f"{each:g}" for each in ticks])
    axes.minorticks_off()
    if min(score.metrics[metric].value for row in lines.values() for score in row) > 0:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel({"evaluations": "evaluations of the network a picture"}.get(cost, cost))
    better = "less" if lower_is_better(metric) else "more"
    axes.set_ylabel(f"{metric} ({better} is better)")
    about = scores[0].fingerprint
    axes.set_title(
        f"{about.count} pictures against {about.reference} by {about.extractor}; "
        "bars: 95 % intervals",
        fontsize=9,
    )
    axes.grid(color="0.92")
    axes.legend(frameon=False, fontsize=9)
    content = io.BytesIO()
    figure.savefig(content, format="png")
    write_durably(path, lambda temporary: temporary.write_bytes(content.getvalue()))
    return path


def _cost(score: Score, cost: str) -> Any:
    """A cost of samples, by its name; None of those that were not drawn."""
    return getattr(score.samples, cost)


def _apart(costs: set[float]) -> list[float]:
    """Of costs, from dear to cheap, those that leave room for their labels on a log axis."""
    kept: list[float] = []
    for each in sorted(costs, reverse=True):
        if not kept or kept[-1] / each > CLOSEST:
            kept.append(each)
    return kept
