"""The command of reports: where the page goes, and what is told of mistakes."""

import json
import sys

import pytest

from unnoise.cli import report, results


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make_run(folder):
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(f"name: {folder.name}\n")
    (folder / "metrics.jsonl").write_text(json.dumps({"step": 1, "time": 1.0, "train/loss": 0.5}))
    return folder


def command(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["unnoise-report", *map(str, arguments)])
    report.main()


def told(capsys, monkeypatch, *arguments):
    with pytest.raises(SystemExit) as stop:
        command(monkeypatch, *arguments)
    assert stop.value.code == 2
    return capsys.readouterr().err


def pages(folder):
    return [str(path.relative_to(folder)) for path in sorted(folder.rglob("*.html"))]


@pytest.mark.parametrize(
    ("arguments", "page", "runs"),
    [
        (["outputs/x/a"], "outputs/x/a/report.html", 1),
        (["outputs/x"], "outputs/x/report.html", 2),
        (["outputs/y"], "outputs/y/c/report.html", 1),
        (["outputs"], "outputs/report.html", 3),
        (["outputs/x/a", "outputs/y"], "outputs/report.html", 2),
        (["outputs/x", "outputs/x/a"], "outputs/x/report.html", 2),
        (["outputs", "-o", "new/it.html"], "new/it.html", 3),
        (["runs=[outputs/x/a,outputs/y/c]", "out=it.html"], "it.html", 2),
        (["run=outputs/x/a"], "outputs/x/a/report.html", 1),
    ],
)
def test_where_the_page_goes(arguments, page, runs, elsewhere, monkeypatch, capsys):
    for name in ("x/a", "x/b", "y/c"):
        make_run(elsewhere / "outputs" / name)
    command(monkeypatch, *arguments)
    assert pages(elsewhere) == [page]
    out = capsys.readouterr().out
    assert out.splitlines()[-1].strip() == page
    assert runs == 1 or out.startswith(f"{runs} runs: ")


def test_mistakes(elsewhere, monkeypatch, capsys):
    (elsewhere / "empty").mkdir()
    run = make_run(elsewhere / "run")
    assert "path: missing" in told(capsys, monkeypatch)
    both = told(capsys, monkeypatch, "empty", "nowhere", run)
    assert "path: no run is at or below empty" in both
    assert "path: nowhere is not there" in both
    assert "path: run/metrics.jsonl is a file" in told(capsys, monkeypatch, "run/metrics.jsonl")
    assert "out: a.txt must end in .html" in told(capsys, monkeypatch, run, "-o", "a.txt")
    (elsewhere / "b.html").mkdir()
    assert "out: b.html is a folder" in told(capsys, monkeypatch, run, "-o", "b.html")
    into = told(capsys, monkeypatch, run, "-o", "run/metrics.jsonl/a.html")
    assert "metrics.jsonl is a file, not a folder" in into
    assert pages(elsewhere) == ["b.html"]


def test_a_full_disk_is_told_without_a_traceback(elsewhere, monkeypatch):
    def full(path, folders):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(report, "write", full)
    with pytest.raises(SystemExit, match=r"no page was written: .*No space left on device"):
        command(monkeypatch, make_run(elsewhere / "run"))


def test_damage_is_told_beside_the_page(elsewhere, monkeypatch, capsys):
    run = make_run(elsewhere / "run")
    (run / "manifest.json").write_text("{")
    command(monkeypatch, run)
    assert "run: manifest.json is unreadable" in capsys.readouterr().err


def test_a_report_that_fails_does_not_fail_the_training(elsewhere, monkeypatch, capsys):
    run = make_run(elsewhere / "run")
    results.print_results(run, "run", 1.0)
    assert "  report           run/report.html\n" in capsys.readouterr().out
    (run / "report.html").unlink()
    (run / "report.html").mkdir()
    results.print_results(run, "run", 1.0)
    out, err = capsys.readouterr()
    assert "run: done in 0 min 01 s" in out
    assert "  report " not in out
    assert err.startswith("warning: no report was written: ")
    assert err.count("\n") == 1
