"""The manifest tells a finished run from a failed, an interrupted and a killed one."""

import json
import os
import signal
import time
from datetime import datetime

import pytest
import torch
from lightning import Callback
from tiny import experiment

from unnoise.runs import manifest
from unnoise.runs.checkpoints import checkpoints
from unnoise.training.loop import fit


class At(Callback):
    """Does something when a step has been taken."""

    def __init__(self, step, act):
        self.step, self.act = step, act

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if trainer.global_step == self.step:
            self.act()


def fail():
    raise RuntimeError("out of luck\nand so on")


def interrupt():
    os.kill(os.getpid(), signal.SIGTERM)


def read(run_dir):
    return json.loads((run_dir / "manifest.json").read_text())


def train(run_dir, steps, act=None, at=None, origin=None):
    last = next(reversed(checkpoints(run_dir)), None)
    fit(experiment({"at": At(at, act)}, max_steps=steps), {}, run_dir, last, origin)
    return read(run_dir)


def test_a_finished_run_says_when_and_what_it_took(tmp_path):
    before = time.time()
    told = train(tmp_path, 4)
    took = time.time() - before
    assert told["steps"] == 4
    assert 0 < told["seconds"] <= took + 0.1
    started = datetime.strptime(told["started"], manifest.TIME).timestamp()
    assert before - 1 < started < before + took
    assert told["finished"] >= told["started"]
    assert "failed" not in told
    assert told["resumed"] == []
    assert 100 < told["peak_memory_mb"] < 32_000
    parameters = sum(p.numel() for p in experiment().network.parameters())
    assert told["parameters"] == parameters
    assert "discriminator_parameters" not in told


def test_a_failed_run_says_why_and_is_whole_again_after_a_resume(tmp_path):
    with pytest.raises(RuntimeError):
        train(tmp_path, 8, fail, at=5)
    failed = read(tmp_path)
    assert failed["failed"] == "RuntimeError: out of luck"
    assert (failed["steps"], "finished" in failed) == (5, False)
    told = train(tmp_path, 8)
    assert (told["steps"], "finished" in told, "failed" in told) == (8, True, False)
    assert [(each["step"], each["git_commit"]) for each in told["resumed"]] == [
        (5, told["git_commit"])
    ]


def test_an_interrupted_run_neither_finished_nor_failed(tmp_path):
    with pytest.raises(SystemExit):
        train(tmp_path, 8, interrupt, at=3)
    told = read(tmp_path)
    assert told["steps"] == 3, "the signal waits for the end of the step"
    assert {"finished", "failed"}.isdisjoint(told)


def test_a_run_that_goes_on_looks_unfinished(tmp_path):
    seen = []
    train(tmp_path, 4)
    train(tmp_path, 6, lambda: seen.append(read(tmp_path)), at=5)
    assert {"finished", "failed", "seconds", "steps"}.isdisjoint(seen[0])


def test_a_resume_keeps_what_was_true_at_the_first_start(tmp_path):
    typed = {"overrides": ["schedule=linear", "seed=1"], "choices": {"a": "b"}, "sweep": "c"}
    first = train(tmp_path, 2, origin=typed)
    assert {key: first[key] for key in typed} == typed
    (tmp_path / "manifest.json").write_text(
        json.dumps(first | {"started": "2020-01-02T03:04:05+0000", "git_commit": "abc"})
    )
    second = train(tmp_path, 4, origin={"overrides": ["resume=true"]})
    third = train(tmp_path, 6)
    kept = typed | {"started": "2020-01-02T03:04:05+0000", "git_commit": "abc"}
    assert {key: second[key] for key in kept} == {key: third[key] for key in kept} == kept
    assert [each["step"] for each in third["resumed"]] == [2, 4]


def test_seconds_add_up_over_a_killed_part(tmp_path):
    now = time.time()

    def ago(seconds):
        return time.strftime(manifest.TIME, time.localtime(now - seconds))

    opened = {"started": ago(100), "resumed": [{"time": ago(40)}]}
    times = [now - 95, now - 70, now - 30]  # killed at -70 or later, found again at -40
    told = manifest.closed(tmp_path, opened, 9, torch.device("cpu"), 12.0, times, None)
    assert told["seconds"] == pytest.approx(30 + 12, abs=1.1)  # a start is kept in whole seconds
    assert read(tmp_path) == told
