import dataclasses
import json
from pathlib import Path

from html_parts import Seen
from hypothesis import given
from hypothesis import strategies as st
from made_runs import FINGERPRINT, make, score

from unnoise.evaluation.results import save
from unnoise.report.page import page
from unnoise.report.page.evaluations import cost_data, evaluations, groups
from unnoise.report.reader import read_run

FEWER = dataclasses.replace(FINGERPRINT, count=50)


def told(tmp_path, **scores):
    runs = [make(tmp_path / name) for name in scores]
    for run, each in zip(runs, scores.values(), strict=True):
        save(run / "evaluation" / "quality_1.json", each)
    return section([read_run(run) for run in runs])


def section(runs):
    """The section of the page that shows evaluations."""
    text = page(Path("report.html"), runs)
    return text.partition('<section id="evaluation">')[2].partition("</section>")[0]


def tables(part):
    """The text of each table's cells, a list a row."""
    return [
        [
            [Seen(cell).text.strip() for cell in row.split("<td")[1:]]
            for row in body.split("<tr>")[1:]
        ]
        for body in (each.partition("</tbody>")[0] for each in part.split("<tbody>")[1:])
    ]


def test_numbers_that_do_not_compare_stand_in_tables_of_their_own_and_it_is_said_why(tmp_path):
    part = told(tmp_path, a=[score("x", 3.0, 10)], b=[score("y", 2.0, 10, FEWER)])
    assert len(tables(part)) == 2
    text = Seen(part).text
    assert "Not ranked against table 1: count is 100 in one, 50 in the other." in text
    assert "2 ways that cannot be compared" in text


def test_a_table_begins_with_the_best_and_shows_all(tmp_path):
    scores = [score("b", 3.0, 10), score("noise", 9.0, 0, kind="noise"), score("a", 2.0, 10),
              score("none", float("nan"), 5), score("real", 1.0, 0, kind="real")]  # fmt: skip
    part = told(tmp_path, run=scores)
    (rows,) = tables(part)
    assert [row[0].partition(">")[2] for row in rows] == ["real", "a", "b", "noise", "none"]
    (best,) = (each for each in part.split("<td")[1:] if "best" in each.partition(">")[0])
    assert 'data-value="2.0"' in best  # of real pictures it is no achievement


def test_what_is_for_comparison_stands_once_and_belongs_to_no_run(tmp_path):
    real = score("real", 1.0, 0, kind="real")
    again = [real, score("x", 3.0, 10), score("x", 3.0, 10)]
    (rows,) = tables(told(tmp_path, a=again, b=[real, score("x", 4.0, 10)]))
    names = [[cell.partition(">")[2] for cell in row[:2]] for row in rows]
    assert names == [["–", "real"], ["a", "x"], ["b", "x"]]


def test_of_some_metrics_more_is_better(tmp_path):
    one, other = (score(n, fd, 5, recall_sprites=r) for n, fd, r in (("a", 1, 0.2), ("b", 2, 0.3)))
    part = told(tmp_path, run=[one, other])
    marked = [each for each in part.split("<td")[1:] if "best" in each.partition(">")[0]]
    assert ['data-value="1"' in each or 'data-value="0.3"' in each for each in marked] == [True] * 2


POINTS = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=12)


@given(POINTS)
def test_the_front_is_what_nothing_beats_in_both(points):
    scores = [("run", score(f"{k}", float(fd), cost)) for k, (cost, fd) in enumerate(points)]
    front = cost_data(scores)["fronts"]["fd_sprites evaluations"]
    beaten = {
        k for k, (cost, fd) in enumerate(points)
        if any(c <= cost and f <= fd and (c, f) != (cost, fd) for c, f in points)
    }  # fmt: skip
    assert {points[k] for k in front} == {p for k, p in enumerate(points) if k not in beaten}
    costs = [points[k][0] for k in front]
    assert costs == sorted(set(costs))


@given(st.lists(st.sampled_from([FINGERPRINT, FEWER])))
def test_groups_hold_each_score_once(fingerprints):
    owned = [("run", score(str(k), 1.0, 1, each)) for k, each in enumerate(fingerprints)]
    told = groups(owned)
    assert sorted(o[1].name for _, group in told for o in group) == sorted(s.name for _, s in owned)
    assert all(score.fingerprint == each for each, group in told for _, score in group)


def test_rows_of_other_measures_are_shown(tmp_path):
    run = make(tmp_path / "run")
    rows = [{"target": "kind", "n": 500, "share": 0.996, "low": 0.9855, "high": 0.9989}]
    content = {"measure": "adherence", "sampler": {"steps": 20}, "rows": rows}
    (run / "evaluation" / "adherence_1.json").write_text(json.dumps(content))
    text = Seen(section([read_run(run)])).text
    for each in ("Adherence", "kind", "500", "99.6 %", "98.6 %", "99.9 %", "steps 20"):
        assert each in text


def test_nothing_was_evaluated(tmp_path):
    run = make(tmp_path / "run")
    save(run / "evaluation" / "quality_1.json", [])
    assert evaluations([read_run(run)], ["run"]) is None
