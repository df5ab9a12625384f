import json
import os
import platform
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_runs import MANIFEST, make, score

from unnoise.evaluation.results import save
from unnoise.report.reader import find_runs, read_run, read_runs, read_state

VALUES = st.floats(allow_nan=True, allow_infinity=True)


@given(st.lists(st.dictionaries(st.sampled_from("abc"), VALUES), max_size=8), st.integers(0, 40))
def test_curves_are_what_was_logged_though_the_last_line_be_cut_off(logged, cut):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "metrics.jsonl"
        lines = [json.dumps({"step": k, "time": 1.0, **row}) for k, row in enumerate(logged)]
        path.write_text("".join(f"{line}\n" for line in lines) + '{"step": 9, "time": 2.0}'[:cut])
        run = read_run(Path(folder))
    for name in "abc":
        want = [(k, row[name]) for k, row in enumerate(logged) if name in row]
        steps, values = run.curves.get(name, ([], []))
        assert list(steps) == [step for step, _ in want]
        np.testing.assert_array_equal(values, [value for _, value in want])
    assert not [each for each in run.problems if "line" in each]


def test_processes_read_what_one_reads(tmp_path, monkeypatch):
    runs = [make(tmp_path / f"{k}", overrides=[f"seed={k}"]) for k in range(3)]
    (runs[1] / "manifest.json").write_text("{")
    monkeypatch.setattr("unnoise.report.reader.MANY", 2)
    together, alone = read_runs(runs), [read_run(run) for run in runs]
    for one, other in zip(together, alone, strict=True):
        for name, curve in one.curves.items():
            np.testing.assert_array_equal(curve, other.curves[name])
        assert one.curves.keys() == other.curves.keys()
        assert (one.overrides, one.manifest, one.scores) == (
            *(other.overrides, other.manifest, other.scores),
        )
    assert any("manifest.json" in problem for problem in together[1].problems)


def test_what_is_broken_is_told_and_the_rest_is_read(tmp_path):
    run = make(tmp_path / "run")
    (run / "manifest.json").write_text("{")
    (run / "config.yaml").write_text("a: [")
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join([*lines[:2], "[1]\n", "nonsense\n", *lines[2:]]))
    (run / "evaluation" / "quality_1.json").write_text('{"scores": [{"name": 1}]}')
    (run / "evaluation" / "quality_2.json").write_text("{")
    (run / "evaluation" / "adherence_1.json").write_text("[]")
    save(run / "evaluation" / "quality_3.json", [score("ddim", "much", 5)])
    save(run / "evaluation" / "quality_4.json", [score("ddim", 1.0, 5)])
    read = read_run(run)
    beginnings = ["config.yaml", "manifest.json", "metrics.jsonl, line 3", "metrics.jsonl, line 4",
                  "evaluation/adherence_1", "evaluation/quality_1", "evaluation/quality_2",
                  "evaluation/quality_3"]  # fmt: skip
    assert len(read.problems) == len(beginnings)
    for problem, beginning in zip(read.problems, beginnings, strict=True):
        assert problem.startswith(beginning)
    assert len(read.curves["train/loss"]) == 5
    assert [each.name for each in read.scores] == ["ddim"]


def test_scores_and_rows_are_what_was_saved(tmp_path):
    run = make(tmp_path / "run")
    scores = [score("ddim", 3.5, 10), score("real", 1.0, 0, kind="real")]
    save(run / "evaluation" / "quality_1.json", scores, measure="quality")
    told = {"measure": "adherence", "n": 5, "rows": [{"target": "kind", "share": 0.5}]}
    (run / "evaluation" / "adherence_1.json").write_text(json.dumps(told))
    read = read_run(run)
    assert read.scores == scores
    (table,) = read.tables
    assert (table.measure, table.about, table.rows) == ("adherence", {"n": 5}, told["rows"])


def test_what_was_typed_is_what_was_typed_first(tmp_path):
    first = MANIFEST | {"overrides": ["schedule=cosine"]}
    resumed = make(tmp_path / "a", overrides=["resume=outputs/a"], manifest=first)
    assert read_run(resumed).overrides == ["schedule=cosine"]
    assert read_run(make(tmp_path / "b", overrides=["seed=1"])).overrides == ["seed=1"]


def test_what_was_chosen_for_each_group(tmp_path):
    chosen = {"sampler": "ddim", "sampler@callbacks.samples.sampler": "euler", "hydra/env": None}
    run = read_run(make(tmp_path / "a", choices=chosen))
    assert run.choices == {"sampler": "ddim", "callbacks.samples.sampler": "euler"}
    assert read_run(make(tmp_path / "b")).choices == {}
    odd = read_run(make(tmp_path / "c", manifest=MANIFEST | {"choices": ["ddim"]}))
    assert odd.choices == {}
    assert any("choices" in problem for problem in odd.problems)


OPEN = {k: v for k, v in MANIFEST.items() if k not in ("finished", "seconds")}
OPEN |= {"host": platform.node(), "pid": os.getpid()}


@pytest.mark.parametrize(
    ("manifest", "state"),
    [
        (MANIFEST, "finished"),
        (OPEN | {"failed": "ValueError: x", "seconds": 3.0}, "failed"),
        (OPEN | {"seconds": 3.0}, "interrupted"),
        (OPEN, "running"),
        (OPEN | {"pid": 2**22 + 1}, "interrupted"),
        (OPEN | {"host": "elsewhere"}, "unfinished"),
        (OPEN | {"pid": None}, "unknown"),
    ],
)
def test_state(manifest, state, tmp_path):
    assert read_run(make(tmp_path / "run", manifest=manifest)).state == state


def test_runs_are_found_below_but_not_inside_of_each_other_or_hidden(tmp_path):
    wanted = [make(tmp_path / name) for name in ("a/1", "a/2", "b")]
    make(tmp_path / "a" / "1" / "inside")
    make(tmp_path / ".hidden" / "run")
    (tmp_path / "classifiers").mkdir()
    assert find_runs(tmp_path) == wanted
    assert find_runs(wanted[0]) == wanted[:1]
    with pytest.raises(FileNotFoundError, match=r"no run is at or below .*classifiers"):
        find_runs(tmp_path / "classifiers")
    with pytest.raises(FileNotFoundError, match="not there"):
        find_runs(tmp_path / "nowhere")


@given(
    st.lists(st.dictionaries(st.sampled_from("abc"), VALUES, min_size=1), max_size=8),
    st.integers(0, 40),
)
def test_the_ends_of_a_log_tell_step_time_and_last_value_as_the_whole_log_does(logged, cut):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "metrics.jsonl"
        lines = [json.dumps({"step": k, "time": 7.0 * k, **row}) for k, row in enumerate(logged)]
        lines.insert(len(lines) // 2, 'no row, but with an "a"')
        path.write_text(
            "".join(f"{line}\n" for line in lines) + '{"step": 9, "time": 99.0, "c": 1}'[:cut]
        )
        whole, ends = read_run(Path(folder)), read_state(Path(folder), "a")
    for value in ("step", "seconds"):
        assert getattr(ends, value) == getattr(whole, value)
    np.testing.assert_equal(ends.last("a"), whole.last("a"))


def test_the_speed_is_of_all_that_was_logged_however_long_and_peaks_stay(tmp_path):
    values = [1e6, *([5.0] * 3000), *([9.0] * 2000)]
    values[2500] = -3.0
    lines = [{"step": k, "time": k, "train/images_per_second": v} for k, v in enumerate(values)]
    run = read_run(make(tmp_path / "run", lines=lines))
    assert run.speed == 5.0
    assert {1e6, -3.0, 5.0, 9.0} == set(run.curves["train/images_per_second"].values)
    assert len(run.curves["train/images_per_second"]) <= 1000


@pytest.mark.parametrize("odd", ["[1]", "", '{"step": 1}', '{"step": 1, "time": null}',
                                 '{"step": 1e99, "time": 1}', '{"step": 1, "time": 1, "a": [1]}',
                                 '{"step": 1, "time": 1}, {"step": 2, "time": 1}',
                                 '{"step": 1,', '{"step": 1, "time": NaN}',
                                 '{"step": 1, "time": Infinity}'])  # fmt: skip
def test_a_line_that_is_no_row_is_told_by_its_number(odd, tmp_path):
    run = make(tmp_path / "run")
    with (run / "metrics.jsonl").open("a") as file:
        file.write(odd + "\n" + '{"step": 500, "time": 2000, "train/loss": null}\n')
    read = read_run(run)
    assert [each.partition(" is")[0] for each in read.problems] == ["metrics.jsonl, line 6"]
    assert (len(read.curves["train/loss"]), read.step) == (6, 500)
    ends = read_state(run, "train/loss")
    assert (ends.step, ends.seconds, ends.speed) == (500, read.seconds, None)


def test_the_time_is_from_the_first_whole_line_on(tmp_path):
    lines = [{"step": k, "time": 10.0 * k, "train/loss": 1.0} for k in range(1, 5)]
    run = make(tmp_path / "run", manifest={}, lines=[{"step": 0, "time": float("nan")}, *lines])
    for read in (read_run(run), read_state(run, "train/loss")):
        assert (read.step, read.seconds) == (4, 30.0)
