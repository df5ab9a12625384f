"""The page that is served: fresh, for this machine alone, and of the runs alone."""

import json
import os
import platform
import threading
import urllib.error
import urllib.request
from unittest.mock import Mock

import pytest
from made_runs import make

from unnoise.report.board import Board
from unnoise.report.page import page
from unnoise.report.reader import read_runs


@pytest.fixture
def home(tmp_path):
    """Two runs, and files that are nobody's business."""
    for name in ("a", "b"):
        make(tmp_path / "outputs" / name, name=name)
        (tmp_path / "outputs" / name / "evaluation" / "table.csv").write_text("x\n1\n")
    (tmp_path / "outputs" / "other.csv").write_text("not of a run")
    (tmp_path / "secret.json").write_text('"not of a run"')
    (tmp_path / "outputs" / "a" / "leads_out.json").symlink_to(tmp_path / "secret.json")
    (tmp_path / "outputs" / "a" / "code.html").write_text("<script>alert(1)</script>")
    return tmp_path / "outputs"


@pytest.fixture
def board(home):
    with Board([home], home, 0) as board:
        threading.Thread(target=board.serve_forever, daemon=True).start()
        yield board
        board.shutdown()


def get(board, path, method="GET", **headers):
    """Status, headers and text."""
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(board.address + path, headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, ""


def test_all_runs_and_each_have_a_page(board):
    status, headers, text = get(board, "")
    assert status == 200
    assert "2 runs" in text
    assert f'data-state="{headers["ETag"]}"' in text
    for name in ("a", "b"):
        _, _, own = get(board, f"{name}/report.html")
        assert f"<title>{name} " in own
        assert get(board, name)[2] == own  # led there
    assert get(board, "a/evaluation/table.csv")[2] == "x\n1\n"


@pytest.mark.parametrize(
    "path",
    ["c", "other.csv", "a/leads_out.json", "a/code.html", "a/%2e%2e/other.csv", "../secret.json",
     "a/../../secret.json", "%2e%2e/secret.json", "a/checkpoints/step_00000100.ckpt",
     "a/checkpoints", "a/evaluation", "a%00b"],
)  # fmt: skip
def test_nothing_else_is_handed_out(board, path):
    assert get(board, path)[0] == 404


def test_a_foreign_name_for_this_machine_is_refused(board):
    """So that no page of another place can read it through a name that leads here."""
    assert get(board, "", Host="example.org")[0] == 403
    assert get(board, "", Host="localhost:9000")[0] == 200  # a port that is forwarded to it
    assert board.server_address[0] == "127.0.0.1"


def test_what_changes_is_seen_and_nothing_is_drawn_twice(board, home, monkeypatch):
    first = get(board, "", "HEAD")[1]["ETag"]
    _, headers, text = get(board, "")
    assert headers["ETag"] == first == get(board, "", "HEAD")[1]["ETag"]
    monkeypatch.setattr("unnoise.report.board.read_run", None)
    assert get(board, "")[2] == text
    monkeypatch.undo()
    with (home / "b" / "metrics.jsonl").open("a") as log:
        log.write(json.dumps({"step": 99, "time": 9.0, "train/loss": 0.125}) + "\n")
    assert get(board, "a/report.html", "HEAD")[1]["ETag"] == get(board, "a", "HEAD")[1]["ETag"]
    assert get(board, "", "HEAD")[1]["ETag"] != first
    assert "0.125" in get(board, "")[2]
    make(home / "c", name="c")
    assert "3 runs" in get(board, "")[2]


def test_a_run_that_was_killed_is_seen_though_no_file_changes(board, home, monkeypatch):
    made = json.loads((home / "a" / "manifest.json").read_text())
    told = {name: made[name] for name in made if name not in ("finished", "seconds")}
    told |= {"pid": os.getpid(), "host": platform.node()}
    (home / "a" / "manifest.json").write_text(json.dumps(told))
    first = get(board, "", "HEAD")[1]["ETag"]
    assert "running" in get(board, "a")[2]
    monkeypatch.setattr(os, "kill", Mock(side_effect=ProcessLookupError))
    assert get(board, "", "HEAD")[1]["ETag"] != first
    assert "interrupted" in get(board, "a")[2]


def test_a_page_that_is_written_asks_nothing(home, tmp_path):
    text = page(tmp_path / "report.html", read_runs([home / "a", home / "b"]))
    assert "data-state" not in text
    assert "fetch" not in text
    assert "connect-src" not in text
