import itertools
from dataclasses import replace

import pytest

from unnoise.evaluation.frontier import CLOSEST, _apart, frontier, plot
from unnoise.evaluation.results import Estimate, Fingerprint, Samples, Score

SAME = Fingerprint(10, "train 10 of abc", "garments 123", "none 28", "nearest")


def score(evaluations, fd, recall=0.5, sampler="ddim"):
    samples = Samples(kind="drawn", sampler=sampler, evaluations=evaluations)
    metrics = {"fd_garments": Estimate(fd, 0.1), "recall_garments": Estimate(recall)}
    return Score(f"{sampler} {evaluations}", samples, SAME, metrics)


def beaten(one, other, metric, sign):
    worse = one.samples.evaluations >= other.samples.evaluations
    mine, theirs = (sign * each.metrics[metric].value for each in (one, other))
    return worse and mine >= theirs


@pytest.mark.parametrize(("metric", "sign"), [("fd_garments", 1), ("recall_garments", -1)])
def test_the_front_is_what_no_other_beats(metric, sign):
    values = [(5, 9.0, 0.2), (10, 4.0, 0.5), (10, 3.0, 0.4), (20, 3.5, 0.6), (50, 1.0, 0.6)]
    scores = [score(*each) for each in values]
    expected = [
        one
        for one in scores
        if not any(beaten(one, other, metric, sign) for other in scores if other is not one)
    ]
    for order in itertools.permutations(scores):
        assert frontier(order, metric) == expected


def test_real_pictures_have_no_cost_and_are_not_on_the_front():
    real = Score("real", Samples(kind="real"), SAME, {"fd_garments": Estimate(0.0)})
    assert frontier([real, score(5, 1.0)], "fd_garments") == [score(5, 1.0)]


def test_the_plot_has_no_line_of_fewer_real_pictures(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("matplotlib.axes.Axes.axhline", lambda *_, **__: drawn.append(1))
    real = Score("real", Samples(kind="real"), SAME, {"fd_garments": Estimate(0.5, 0.1)})
    scores = [score(5, 9.0), score(10, 4.0)]
    plot(tmp_path / "all.png", [*scores, real], "fd_garments")
    few = replace(real, fingerprint=replace(SAME, count=5))
    plot(tmp_path / "few.png", [*scores, few], "fd_garments")
    assert len(drawn) == 1


def test_the_plot_is_written(tmp_path):
    real = Score("real", Samples(kind="real"), SAME, {"fd_garments": Estimate(0.01)})
    path = plot(tmp_path / "a.png", [real, score(5, 2.0), score(10, 1.0)], "fd_garments")
    assert path.read_bytes().startswith(b"\x89PNG")


def plotted(monkeypatch, tmp_path, scores, **options):
    """The figure as it is written."""
    kept = []
    monkeypatch.setattr(
        "matplotlib.figure.Figure.savefig", lambda figure, *_, **__: kept.append(figure)
    )
    monkeypatch.setattr("unnoise.evaluation.frontier.write_durably", lambda _, write: write(None))
    plot(tmp_path / "a.png", scores, "fd_garments", **options)
    return kept[0]


def test_lines_differ_in_colour_or_marker(tmp_path, monkeypatch):
    scores = [score(5 + k, 2.0 + k, sampler=f"sampler {k}") for k in range(20)]
    (axes,) = plotted(monkeypatch, tmp_path, scores).axes
    looks = [(bars[0].get_color(), bars[0].get_marker()) for bars in axes.containers]
    assert len(looks) == len(set(looks)) == 20


SECONDS = (0.00136670, 0.00188437, 0.00788757, 0.0144306, 0.0715486, 0.0796943, 0.0859466)


@pytest.mark.parametrize("cost", ["evaluations", "seconds"])
def test_labels_of_any_costs_do_not_lie_on_each_other(cost, tmp_path, monkeypatch):
    scores = [score(5 * 2**k, 2.0 + k) for k in range(7)]
    if cost == "seconds":
        scores = [
            replace(each, samples=replace(each.samples, seconds=seconds))
            for each, seconds in zip(scores, SECONDS, strict=True)
        ]
    figure = plotted(monkeypatch, tmp_path, scores, cost=cost)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    low, high = axes.get_xlim()
    shown = [label for label in axes.get_xticklabels() if low <= label.get_position()[0] <= high]
    boxes = sorted((label.get_window_extent() for label in shown), key=lambda box: box.x0)
    assert len(boxes) > 3
    assert all(one.x1 < other.x0 for one, other in itertools.pairwise(boxes))


def test_labels_of_costs_do_not_overlap_and_leave_none_out_that_has_room():
    costs = {5.0, 9.0, 10.0, 19.0, 20.0, 49.0, 50.0, 1000.0}
    kept = _apart(costs)
    assert kept == [1000, 50, 20, 10, 5]
    assert all(a / b > CLOSEST for a, b in itertools.pairwise(kept))
    assert all(any(1 < k / each <= CLOSEST for k in kept) for each in costs - set(kept))
