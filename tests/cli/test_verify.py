"""unnoise-verify: the table, the exit status, the file."""

import json

import pytest

from unnoise.cli.verify import main
from unnoise.diffusion import schedules
from unnoise.evaluation.selftest import samplers
from unnoise.evaluation.selftest.schedules import CHECKS

GUIDANCE = [check for check in samplers.CHECKS if check.group == "guidance"]


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Two groups that take no time."""
    monkeypatch.setattr("unnoise.evaluation.selftest.checks.CHECKS", [*CHECKS[:7], *GUIDANCE])


def status(*arguments):
    with pytest.raises(SystemExit) as ended:
        main([*arguments])
    return ended.value.code


def test_all_is_well(tmp_path, capsys):
    path = tmp_path / "new" / "verify.json"
    assert status("--device", "cpu", "--json", str(path)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["check", "got", "expected", "tolerance", "verdict"]
    assert [line for line in lines if line in ("schedules", "guidance")] == [
        "schedules",
        "guidance",
    ]
    assert sum(line.endswith("pass") for line in lines) == 12
    assert any(line.startswith("All 12 checks passed") for line in lines)
    assert max(map(len, lines)) <= 100
    found = json.loads(path.read_text(encoding="utf-8"))
    assert found["passed"]
    assert {"python", "unnoise", "torch"} <= found["versions"].keys()
    assert found["hardware"]["device"] == "cpu"
    linear = found["checks"][0]
    assert linear["name"] == "ᾱ_T, linear"
    assert abs(linear["got"] - linear["expected"]) < linear["tolerance"]


def test_a_wrong_number_is_exit_status_1_and_in_the_file(tmp_path, capsys, monkeypatch):
    right = schedules.cosine
    monkeypatch.setattr(schedules, "cosine", lambda: right(s=0.009))
    path = tmp_path / "verify.json"
    assert status("--device", "cpu", "--json", str(path)) == 1
    out = capsys.readouterr().out
    assert "1 of 12 checks failed" in out
    assert "schedules: ᾱ_T, cosine" in out
    assert "Nichol & Dhariwal 2021" in out
    found = json.loads(path.read_text(encoding="utf-8"))
    assert not found["passed"]
    assert [each["name"] for each in found["checks"] if not each["passed"]] == ["ᾱ_T, cosine"]


@pytest.mark.parametrize("device", ["nonsense", "cuda:99", "meta"])
def test_a_device_that_is_not_there_is_told_before_anything_runs(device, capsys):
    assert status("--device", device) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert f"--device: {device} cannot be used here" in err


def test_a_file_that_cannot_be_written_is_told_before_anything_runs(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert status("--json", str(tmp_path / "file" / "verify.json")) == 2
    assert status("--json", str(tmp_path)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "is a file, not a folder" in err
    assert "is a folder, not a file" in err
