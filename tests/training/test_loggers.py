"""Nothing that was logged is lost, nothing prompts, and no dashboard stops a run."""

import errno
import json
import os
import re
import sys
import time
from functools import partial

import pytest
from lightning import Callback
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import experiment

from unnoise.training.logging import choices
from unnoise.training.logging import record as loggers
from unnoise.training.logging.jsonl import JsonLines
from unnoise.training.logging.record import Dashboard, within
from unnoise.training.logging.tensorboard import TensorBoard
from unnoise.training.logging.wandb import WeightsAndBiases
from unnoise.training.loop import fit


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch, tmp_path):
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


def test_lines_are_on_disk_at_once(tmp_path):
    log = JsonLines(tmp_path / "metrics.jsonl")
    log.log_metrics({"a": 1.5}, 3)
    assert json.loads(log.path.read_text())["a"] == 1.5
    assert log.latest == {"a": 1.5}


def test_every_line_is_json_though_a_value_be_none(tmp_path):
    log = JsonLines(tmp_path / "metrics.jsonl")
    log.log_metrics({"a": float("nan"), "b": float("inf"), "c": 2.0}, 3)
    row = json.loads(log.path.read_text(), parse_constant=pytest.fail)
    assert (row["a"], row["b"], row["c"]) == (None, None, 2.0)


def test_rewind_drops_later_lines_and_a_torn_one(tmp_path):
    log = JsonLines(tmp_path / "metrics.jsonl")
    for step in (1, 2, 3):
        log.log_metrics({"a": float(step)}, step)
    with log.path.open("a") as file:
        file.write('{"step": 2, "a"')
    assert len(log.rows()) == 3, "as after an error of a full disk"
    log.rewind(2)
    assert [json.loads(line)["step"] for line in log.path.open()] == [1, 2]


def test_auto_takes_wandb_only_with_credentials(tmp_path, monkeypatch):
    def chosen():
        return type(choices.auto(tmp_path, "x")).__name__

    assert chosen() == "TensorBoard"
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password " + "0" * 40)
    assert chosen() == "WeightsAndBiases"
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert chosen() == "TensorBoard"
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert chosen() == "WeightsAndBiases"


def test_wandb_without_credentials_is_an_error_not_a_prompt(tmp_path):
    with pytest.raises(ValueError, match="no credentials here: run `wandb login`"):
        WeightsAndBiases(tmp_path, "x")


def told(capsys, about):
    return [line for line in re.findall("warning: .*", capsys.readouterr().err) if about in line]


def test_a_server_that_refuses_is_told_once_and_the_run_goes_on(tmp_path, monkeypatch, capsys):
    def refuse(**settings):
        raise OSError("connection\nrefused")

    monkeypatch.setattr("wandb.init", refuse)
    offline = partial(WeightsAndBiases, mode="offline")
    fit(experiment(logger=offline, max_steps=4), {}, tmp_path, None)
    assert told(capsys, "warning") == [
        "warning: WeightsAndBiases failed (connection refused) and is left out from step 0 on; "
        f"metrics.jsonl goes on; unnoise-replay {tmp_path} sends it later"
    ]
    assert "finished" in json.loads((tmp_path / "manifest.json").read_text())


class Hangs(Dashboard):
    """Takes one row, and hangs at the next."""

    remedy, abandoned = "", False

    def begin(self, config, manifest, step): ...

    def log_metrics(self, metrics, step=None):
        if step > 1:
            within(0.2, lambda: time.sleep(60))

    def show(self, name, picture, caption, step): ...

    def alert(self, title, text, step): ...

    def end(self, manifest):
        pytest.fail("it was left out")

    def abandon(self):
        self.abandoned = True


def test_a_dashboard_that_hangs_holds_up_one_step_only(tmp_path, capsys):
    board, begun = Hangs(), time.monotonic()
    fit(experiment(logger=lambda **_: board, max_steps=6), {}, tmp_path, None)
    assert time.monotonic() - begun < 30
    (line,) = told(capsys, "warning")
    assert "Hangs failed (no answer within 0.2 s) and is left out from step 2 on" in line
    assert board.abandoned
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]
    assert {row["step"] for row in rows} == {1, 2, 4, 6}


def test_what_a_thread_raises_is_raised_and_its_exit_does_not_end_the_process():
    with pytest.raises(KeyError):
        within(5, lambda: {}["x"])
    with pytest.raises(RuntimeError, match="SystemExit"):
        within(5, lambda: sys.exit(3))
    assert within(5, lambda: 7) == 7


def test_lines_wait_for_space_and_none_is_cut_or_lost(tmp_path, monkeypatch, capsys):
    log, write = JsonLines(tmp_path / "metrics.jsonl"), os.write
    room = 90

    def until_full(descriptor, data):
        nonlocal room
        if room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = write(descriptor, data[:room])
        room -= written
        return written

    monkeypatch.setattr(os, "write", until_full)
    for step in range(1, 6):
        log.log_metrics({"train/loss": step / 4}, step)
    text = log.path.read_text()
    assert text.count("\n") == 1, "one line had room"
    assert text.endswith("\n"), "the second was taken back"
    assert len(log.rows()) == len(log.rows()) == 5
    room = 10**6
    log.log_metrics({"train/loss": 1.5}, 6)
    rows = [json.loads(line) for line in log.path.open()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    room = 0
    log.log_metrics({"train/loss": 1.75}, 7)
    assert [line.partition(" cannot")[0] for line in told(capsys, "cannot be written")] == [
        f"warning: {log.path}"
    ] * 2, "each time that space runs out is said once"


def test_an_alert_is_said_and_shown(tmp_path, capsys):
    class Alerts(Callback):
        def on_train_batch_end(self, trainer, *args):
            if trainer.global_step == 2:
                loggers.alert(trainer, "disk full", "step 2 is not saved")

    logger = TensorBoard
    fit(experiment({"alerts": Alerts()}, logger=logger, max_steps=2), {}, tmp_path, None)
    assert told(capsys, "disk full") == ["warning: disk full: step 2 is not saved"]
    events = EventAccumulator(str(tmp_path / "tensorboard"), {"tensors": 0})
    events.Reload()
    (shown,) = events.Tensors("alert/text_summary")
    assert (shown.step, shown.tensor_proto.string_val) == (2, [b"disk full: step 2 is not saved"])
