"""The summary of a sweep fits a terminal, each job in a row of its own."""

from pathlib import Path

import pytest

from unnoise.config.sweep import Job
from unnoise.report.sweep import row, table


def rows(folder, keys):
    config = {"metric": "validation/loss", "max_steps": 100_000}
    found = []
    for number in range(4):
        run = folder / "outputs" / "swept" / f"2026-11-27_12-09-43_9ab9954{number}-5b2c36fb"
        run.mkdir(parents=True)
        swept = tuple(f"key_{key}.of_a_part={number + 0.123456789}" for key in range(keys))
        found.append(row(Job(swept, config, run)))
    return found


@pytest.mark.parametrize("keys", [0, 1, 2, 3])
def test_a_table_of_any_number_of_keys_fits(keys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = table(rows(Path.cwd(), keys), "validation/loss").splitlines()
    assert max(map(len, lines)) <= 100
    for number in range(4):
        own = " ".join(lines[1 + number :: 6][:2]) if "job" in lines[0] else lines[1 + number]
        assert f"2026-11-27_12-09-43_9ab9954{number}-5b2c36fb" in own
        assert own.count(f"of_a_part={number}.123") == keys
    assert lines[-1] == "4 jobs: 4 to do"
