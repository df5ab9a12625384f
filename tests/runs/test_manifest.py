"""The manifest of a run that goes on says when it first began, whatever is left of it."""

import json
import time

import pytest
import torch

from unnoise.runs import manifest

CPU = torch.device("cpu")
DAY = "2026-01-02T03:04:05+0000"


def begun(run_dir, step=0, resumed=False, **more):
    return manifest.opened(run_dir, {"name": "x"}, CPU, step, {}, resumed, **more)


def since():
    return time.mktime(time.strptime("2026-01-02 03:04:05", "%Y-%m-%d %H:%M:%S"))


def test_a_resume_keeps_the_start(tmp_path):
    first = begun(tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps({**first, "started": DAY}))
    for number in (1, 2):
        again = begun(tmp_path, step=number, resumed=True, since=since())
        assert again["started"] == DAY
        assert [each["step"] for each in again["resumed"]] == list(range(1, number + 1))


@pytest.mark.parametrize("left", [None, {}, {"resumed": [], "name": "x"}])
def test_the_start_is_that_of_the_first_metrics_where_no_manifest_says_it(left, tmp_path):
    if left is not None:
        (tmp_path / "manifest.json").write_text(json.dumps(left))
    found = begun(tmp_path, step=4, resumed=True, since=since())
    assert found["started"].startswith("2026-01-02T03:04:05")
    assert [each["step"] for each in found["resumed"]] == [4]


def test_a_new_run_starts_now(tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps({"started": DAY, "rollbacks": [1]}))
    found = begun(tmp_path, since=since())
    assert found["started"] > DAY
    assert found["rollbacks"] == found["resumed"] == []


def test_changes_of_the_data_add_up(tmp_path):
    begun(tmp_path)
    begun(tmp_path, step=2, resumed=True, data_changed="one more")
    begun(tmp_path, step=3, resumed=True)
    found = begun(tmp_path, step=4, resumed=True, data_changed="another")
    changes = [(each["step"], each["what"]) for each in found["data_changed"]]
    assert changes == [(2, "one more"), (4, "another")]


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_a_damaged_manifest_is_named(text, tmp_path):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match=r"manifest\.json is damaged: put back a whole one, or"):
        manifest.read(tmp_path)
