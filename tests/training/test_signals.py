"""A signal ends a run soon, wherever it comes, and no step that was taken is lost."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from lightning import Callback, Trainer
from tiny import experiment

from unnoise.runs import manifest
from unnoise.runs.checkpoints import checkpoints
from unnoise.runs.layout import step_of
from unnoise.training.callbacks import stop as signals
from unnoise.training.callbacks.checkpoints import Checkpoints
from unnoise.training.loop import fit

LONG = 60  # seconds; what waits for as long is not waited for


class At(Callback):
    """Does something once, in a hook, when so many steps have been taken."""

    def __init__(self, hook, step, act):
        self.step, self.act = step, act
        setattr(self, hook, self._run)

    def _run(self, trainer, *arguments, **named):
        if trainer.global_step == self.step and self.act is not None:
            act, self.act = self.act, None
            act()


def send(number, then=lambda: None):
    def act():
        os.kill(os.getpid(), number)
        then()

    return act


def slow():
    time.sleep(LONG)


def train(folder, at=None, checkpoint=None, **changes):
    """Train for 6 steps with no checkpoint but the last; the steps that are saved."""
    callbacks = {"checkpoints": Checkpoints(every=1000, keep=10)}
    callbacks |= {} if at is None else {"at": at}
    begun = time.monotonic()
    try:
        fit(experiment(callbacks, max_steps=6, **changes), {}, folder, checkpoint)
    finally:
        train.took = time.monotonic() - begun
    return saved(folder)


def saved(folder):
    return [step_of(path) for path in checkpoints(folder)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The weights of a run that nothing ended."""
    folder = tmp_path_factory.mktemp("whole")
    train(folder)
    return torch.load(checkpoints(folder)[-1], weights_only=True)["state_dict"]


def assert_goes_on(folder, whole):
    """The run goes on from where it stands to the very weights of one that nothing ended."""
    train(folder, checkpoint=checkpoints(folder)[-1])
    found = torch.load(checkpoints(folder)[-1], weights_only=True)["state_dict"]
    assert found.keys() == whole.keys()
    assert [key for key in whole if not torch.equal(found[key], whole[key])] == []


@pytest.mark.parametrize(("number", "status"), [(2, 130), (15, 143), (10, 143), (1, 143)])
def test_what_is_done_between_two_steps_is_not_waited_for(tmp_path, whole, capsys, number, status):
    with pytest.raises(SystemExit) as stop:
        train(tmp_path, At("on_train_batch_end", 3, send(number, slow)))
    assert train.took < LONG / 4
    assert stop.value.code == status
    assert saved(tmp_path)[-1] == 3
    name = signal.Signals(number).name
    told = f"{name}: step 3 is saved; go on with the same command and resume={tmp_path}\n"
    assert capsys.readouterr().out.count(told) == 1
    assert_goes_on(tmp_path, whole)


def test_nor_is_a_validation(tmp_path, whole):
    at = At("on_validation_batch_start", 4, send(signal.SIGTERM, slow))
    with pytest.raises(SystemExit):
        train(tmp_path, at, validate_every=2)
    assert train.took < LONG / 4
    assert saved(tmp_path)[-1] == 4
    assert_goes_on(tmp_path, whole)


def test_a_step_is_finished(tmp_path, whole):
    with pytest.raises(SystemExit):
        train(tmp_path, At("on_train_batch_start", 3, send(signal.SIGTERM)))
    assert saved(tmp_path)[-1] == 4
    assert_goes_on(tmp_path, whole)


@pytest.mark.parametrize("parts", [1, 2])
def test_but_not_if_it_takes_long(tmp_path, monkeypatch, parts):
    monkeypatch.setattr(signals, "PATIENCE", 0.3)
    at = At("on_before_backward", 3, send(signal.SIGTERM, slow))
    with pytest.raises(SystemExit):
        train(tmp_path, at, accumulate=parts)
    assert train.took < LONG / 4
    assert saved(tmp_path)[-1] == 3


def test_a_signal_in_the_last_step_ends_the_run_as_any_other(tmp_path):
    with pytest.raises(SystemExit) as stop:
        train(tmp_path, At("on_train_batch_start", 5, send(signal.SIGINT)))
    assert stop.value.code == 130
    assert saved(tmp_path)[-1] == 6


def test_a_signal_before_training_ends_it_with_nothing_to_save(tmp_path):
    with pytest.raises(SystemExit) as stop:
        train(tmp_path, At("on_fit_start", 0, send(signal.SIGUSR1, slow)))
    assert train.took < LONG / 4
    assert (stop.value.code, saved(tmp_path)) == (143, [])


def test_a_save_that_a_signal_cuts_off_is_made_again(tmp_path, monkeypatch, whole):
    save, hits = torch.save, []

    def cut_off(*arguments, **named):
        hits.append(1)
        if len(hits) == 2:  # the first is of the start
            os.kill(os.getpid(), signal.SIGTERM)
            slow()
        save(*arguments, **named)

    monkeypatch.setattr(torch, "save", cut_off)
    with pytest.raises(SystemExit):
        fit(experiment({"checkpoints": Checkpoints(every=2)}, max_steps=6), {}, tmp_path, None)
    assert len(hits) == 3
    assert saved(tmp_path)[-1] == 2
    assert list((tmp_path / "checkpoints").glob(".*")) == []
    assert_goes_on(tmp_path, whole)


def test_two_signals_are_one(tmp_path):
    """As torchrun's SIGTERM after the Ctrl-C of the same terminal."""

    def both():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit) as stop:
        train(tmp_path, At("on_train_batch_start", 3, both))
    assert (stop.value.code, saved(tmp_path)[-1]) == (130, 4)


def fail(kind):
    def act():
        raise kind("no luck")

    return act


@pytest.mark.parametrize(
    ("hook", "step", "kind", "last"),
    [
        ("on_before_backward", 3, torch.OutOfMemoryError, 3),
        ("on_train_batch_end", 3, RuntimeError, 3),
        ("on_before_optimizer_step", 3, torch.OutOfMemoryError, 0),
        ("on_train_batch_end", 3, FloatingPointError, 0),
    ],
)
def test_an_error_between_two_steps_loses_none(tmp_path, whole, hook, step, kind, last):
    """Inside an optimizer step nothing is whole, and bad numbers are not worth saving."""
    with pytest.raises(kind):
        train(tmp_path, At(hook, step, fail(kind)))
    assert saved(tmp_path)[-1] == last
    assert_goes_on(tmp_path, whole)


@pytest.mark.parametrize("error", [RuntimeError("no device"), OSError(5, "no terminal")])
def test_what_ended_a_run_is_told_also_if_saving_fails(tmp_path, monkeypatch, capsys, error):
    def fails(*arguments, **named):
        raise error

    monkeypatch.setattr(signals, "save", fails)
    with pytest.raises(SystemExit) as stop:
        train(tmp_path, At("on_train_batch_end", 3, send(signal.SIGTERM, slow)))
    assert stop.value.code == 143
    assert "SIGTERM: step 3 could not be saved" in capsys.readouterr().out


def test_a_terminal_that_is_gone_takes_neither_step_nor_status(tmp_path, monkeypatch, whole):
    """As after SIGHUP: what is printed cannot be written any more."""

    class Gone:
        def write(self, *text):
            raise OSError(5, "Input/output error")

        flush = write

    with monkeypatch.context() as patch:
        hang_up = send(signal.SIGHUP, lambda: patch.setattr(sys, "stdout", Gone()))
        with pytest.raises(SystemExit) as stop:
            train(tmp_path, At("on_train_batch_start", 3, hang_up))
    assert stop.value.code == 143
    assert saved(tmp_path)[-1] == 4
    assert_goes_on(tmp_path, whole)


@pytest.mark.parametrize(
    ("act", "ended"), [(send(signal.SIGTERM), SystemExit), (lambda: 1 / 0, ZeroDivisionError)]
)
def test_a_manifest_that_cannot_be_written_hides_nothing(tmp_path, monkeypatch, capsys, act, ended):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(manifest, "closed", full)
    with pytest.raises(ended):
        train(tmp_path, At("on_train_batch_start", 3, act))
    assert "manifest.json does not say how the run ended: [Errno 28]" in capsys.readouterr().err


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_save_does_not_wait_for_what_holds_up_a_gpu(tmp_path):
    """As a collective does in which another rank is missing."""
    begun = []

    def hold_up():
        begun.append(time.time())
        torch.cuda._sleep(20 * 10**9)  # cycles: about ten seconds
        raise RuntimeError("no luck")

    gpu = partial(Trainer, accelerator="gpu", devices=1)
    with pytest.raises(RuntimeError):
        train(tmp_path, At("on_train_batch_end", 3, hold_up), trainer=gpu)
    assert saved(tmp_path)[-1] == 3
    assert checkpoints(tmp_path)[-1].stat().st_mtime < begun[0] + 5


def test_weights_that_are_not_finite_are_not_saved(tmp_path, capsys):
    class Spoil(Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            next(module.model.parameters()).data.fill_(torch.nan)
            raise RuntimeError("no luck")

    with pytest.raises(RuntimeError):
        train(tmp_path, Spoil())
    assert saved(tmp_path) == [0]
    assert "RuntimeError: a weight is not finite" in capsys.readouterr().out


def test_a_job_of_a_sweep_goes_on_with_the_sweep(tmp_path, capsys):
    at = At("on_train_batch_start", 3, send(signal.SIGTERM))
    job = experiment({"at": at}, max_steps=6)
    with pytest.raises(SystemExit):
        fit(job, {}, tmp_path, None, {"sweep": "sweep 1234"})
    assert "is saved; go on with the same command\n" in capsys.readouterr().out


def test_a_launcher_that_requeues_has_its_turn_when_all_is_saved(tmp_path):
    seen = []
    before = signal.signal(signal.SIGUSR2, lambda number, frame: seen.append(saved(tmp_path)[-1]))
    try:
        with pytest.raises(SystemExit) as stop:
            train(tmp_path, At("on_train_batch_start", 3, send(signal.SIGUSR2)))
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert (stop.value.code, seen) == (143, [4])


def test_a_launcher_has_its_turn_however_long_it_takes_to_close(tmp_path, monkeypatch):
    class Closing(At):
        def on_exception(self, *arguments):
            time.sleep(1)

    seen = []
    monkeypatch.setattr(signals, "DEADLINE", 0.2)
    monkeypatch.setattr(os, "_exit", lambda status: seen.append("ended"))
    before = signal.signal(signal.SIGUSR2, lambda number, frame: seen.append("queued again"))
    try:
        with pytest.raises(SystemExit):
            train(tmp_path, Closing("on_train_batch_start", 3, send(signal.SIGUSR2)))
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert seen == ["queued again"]


def test_nohup_is_obeyed(tmp_path):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert train(tmp_path, At("on_train_batch_start", 3, send(signal.SIGHUP)))[-1] == 6
    finally:
        signal.signal(signal.SIGHUP, before)


def test_signals_are_given_back(tmp_path):
    numbers = (*signals.SIGNALS, signal.SIGALRM)
    before = [signal.getsignal(number) for number in numbers]
    train(tmp_path)
    with pytest.raises(SystemExit):
        train(tmp_path / "b", At("on_train_batch_end", 3, send(signal.SIGTERM)))
    assert [signal.getsignal(number) for number in numbers] == before
    assert signal.set_wakeup_fd(-1) == -1
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def children():
    told = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(os.getpid())], capture_output=True, text=True
    )
    return [int(pid) for pid in told.stdout.split() if Path(f"/proc/{pid}/stat").exists()]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_workers_leave_a_signal_to_the_run(tmp_path, whole, number):
    """Ctrl-C reaches all processes of a terminal; so does what torchrun sends those of a rank."""
    before = set(children())

    def all_of_us():
        workers = set(children()) - before
        assert len(workers) >= 2
        for pid in (*workers, os.getpid()):
            os.kill(pid, number)

    with pytest.raises(SystemExit):
        train(tmp_path, At("on_train_batch_start", 3, all_of_us), workers=2)
    assert train.took < LONG / 2
    assert saved(tmp_path)[-1] == 4
    assert set(children()) <= before
    assert_goes_on(tmp_path, whole)
