"""A run that was killed and resumed is the run that was not, bit for bit."""

import json
import os
import signal
from functools import partial

import pytest
import torch
from lightning import Callback
from tiny import experiment

from unnoise.diffusion.times import LossSecondMomentTimes, UniformTimes
from unnoise.training.checkpoints import checkpoints
from unnoise.training.launch import fit

IMPORTANCE = partial(LossSecondMomentTimes, 2, 2)


class Killed(BaseException):
    """Ends a run where it stands, as a signal would."""


class Kill(Callback):
    """Kills at the n-th batch, before or after it, or in the n-th validation."""

    def __init__(self, hook, n):
        self.hook, self.n, self.seen = hook, n, 0

    def _count(self, hook):
        if hook == self.hook:
            self.seen += 1
            if self.seen == self.n:
                raise Killed

    def on_train_batch_start(self, *args):
        self._count("before")

    def on_before_optimizer_step(self, *args):
        self._count("step")

    def on_train_batch_end(self, *args):
        self._count("after")

    def on_validation_batch_end(self, *args, **kwargs):
        self._count("validation")


def final(run_dir):
    newest = checkpoints(run_dir)[-1]
    content = torch.load(newest, weights_only=True)
    return newest.name, content["state_dict"], content["optimizer_states"][0]["state"]


def assert_same_run(a, b):
    name, state, optimizer = final(a)
    other_name, other_state, other_optimizer = final(b)
    assert name == other_name
    assert state.keys() == other_state.keys()
    different = [key for key in state if not torch.equal(state[key], other_state[key])]
    assert not different
    for key, moments in optimizer.items():
        assert all(torch.equal(value, other_optimizer[key][k]) for k, value in moments.items())


def losses(run_dir):
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").open()]
    steps = [row["step"] for row in rows if "train/loss" in row]
    values = {
        row["step"]: {k: v for k, v in row.items() if "loss" in k or "norm" in k} for row in rows
    }
    return steps, values


def fresh(changes):
    """The changes with their time sampler, which learns, made anew."""
    return {key: value() if key == "times" else value for key, value in changes.items()}


def kill_and_resume(tmp_path, hook, n, **changes):
    with pytest.raises(Killed):
        fit(experiment({"kill": Kill(hook, n)}, **fresh(changes)), {}, tmp_path / "b", None)
    checkpoint = next(reversed(checkpoints(tmp_path / "b")), None)
    fit(experiment(**fresh(changes)), {}, tmp_path / "b", checkpoint)


# 40 images in batches of 8: an epoch is 5 steps. Checkpoints at 2, 4, 6, 8 and at the end.
@pytest.mark.parametrize(
    ("hook", "n"),
    [("before", 4), ("step", 5), ("after", 5), ("before", 6), ("after", 10), ("before", 2)],
)
def test_killed_anywhere(tmp_path, hook, n):
    fit(experiment(), {}, tmp_path / "a", None)
    kill_and_resume(tmp_path, hook, n)
    assert_same_run(tmp_path / "a", tmp_path / "b")
    assert losses(tmp_path / "a") == losses(tmp_path / "b")


@pytest.mark.parametrize(
    "changes",
    [
        {"workers": 2},
        {"accumulate": 2},
        {"dropout": 0.3},
        {"conditional": True},
        {"batch_size": 40},  # every step ends an epoch
        {"batch_size": 6},  # epochs end inside batches
        {"precision": "bf16"},
        {"times": IMPORTANCE},
        {"times": IMPORTANCE, "accumulate": 2},
    ],
    ids=str,
)
def test_killed_in_any_setting(tmp_path, changes):
    fit(experiment(**fresh(changes)), {}, tmp_path / "a", None)
    kill_and_resume(tmp_path, "before", 7, **changes)
    assert_same_run(tmp_path / "a", tmp_path / "b")


def test_checkpoint_at_the_very_end_of_an_epoch_with_workers(tmp_path):
    fit(experiment(workers=2, batch_size=20), {}, tmp_path / "a", None)
    kill_and_resume(tmp_path, "after", 4, workers=2, batch_size=20)
    assert_same_run(tmp_path / "a", tmp_path / "b")


def test_crash_during_validation_leaves_weights_as_they_were(tmp_path):
    changes = {"validate_every": 3}
    fit(experiment(**changes), {}, tmp_path / "a", None)
    kill_and_resume(tmp_path, "validation", 2, **changes)
    assert_same_run(tmp_path / "a", tmp_path / "b")


class Interrupt(Kill):
    """Sends a signal where Kill would end the run."""

    def __init__(self, number, hook, n):
        super().__init__(hook, n)
        self.number = number

    def _count(self, hook):
        try:
            super()._count(hook)
        except Killed:
            os.kill(os.getpid(), self.number)


# with accumulate=2: batches 9 and 10 are step 5, and 11 begins step 6
@pytest.mark.parametrize(("hook", "n"), [("before", 11), ("step", 5), ("before", 10)])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_at_a_whole_step_and_the_run_resumes(tmp_path, number, hook, n):
    before = signal.getsignal(number)
    fit(experiment(accumulate=2), {}, tmp_path / "a", None)
    interrupted = experiment({"stop": Interrupt(number, hook, n)}, accumulate=2)
    with pytest.raises(SystemExit) as stop:
        fit(interrupted, {}, tmp_path / "b", None)
    assert stop.value.code == 128 + number
    newest = checkpoints(tmp_path / "b")[-1]
    assert newest.name == "step_00000005.ckpt"
    assert signal.getsignal(number) == before
    fit(experiment(accumulate=2), {}, tmp_path / "b", newest)
    assert_same_run(tmp_path / "a", tmp_path / "b")


def test_a_signal_inside_a_step_leaves_no_trace_in_what_times_have_learned(tmp_path):
    def run(callbacks=None):
        return experiment(callbacks, accumulate=2, times=IMPORTANCE())

    fit(run(), {}, tmp_path / "a", None)
    with pytest.raises(SystemExit):
        fit(run({"stop": Interrupt(signal.SIGTERM, "before", 11)}), {}, tmp_path / "b", None)
    fit(run(), {}, tmp_path / "b", checkpoints(tmp_path / "b")[-1])
    assert_same_run(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize("times", [UniformTimes, IMPORTANCE], ids=str)
def test_accumulation_does_not_change_the_run(tmp_path, times):
    sgd = partial(torch.optim.SGD, lr=0.1)  # Adam would blow up rounding where gradients vanish
    fit(experiment(optimizer=sgd, times=times()), {}, tmp_path / "a", None)
    fit(experiment(optimizer=sgd, times=times(), accumulate=4), {}, tmp_path / "b", None)
    one, four = final(tmp_path / "a")[1], final(tmp_path / "b")[1]
    for key in one:
        torch.testing.assert_close(one[key], four[key], rtol=0, atol=1e-6)


def test_metrics_have_no_gap_and_no_repeat(tmp_path):
    fit(experiment(), {}, tmp_path / "a", None)
    kill_and_resume(tmp_path, "after", 7)
    steps, values = losses(tmp_path / "b")
    assert (steps, values) == losses(tmp_path / "a")
    assert steps == [1, 2, 4, 6, 8, 10]


def test_a_finished_run_goes_on_to_more_steps(tmp_path):
    """10 steps and then 6 more are 16 steps, with a learning rate that does not know the end."""
    fit(experiment(max_steps=16, lr_decay="constant"), {}, tmp_path / "a", None)
    fit(experiment(max_steps=10, lr_decay="constant"), {}, tmp_path / "b", None)
    newest = checkpoints(tmp_path / "b")[-1]
    fit(experiment(max_steps=16, lr_decay="constant"), {}, tmp_path / "b", newest)
    assert_same_run(tmp_path / "a", tmp_path / "b")


def test_the_last_step_always_has_a_checkpoint(tmp_path):
    fit(experiment(max_steps=7), {}, tmp_path, None)
    assert [path.name for path in checkpoints(tmp_path)] == [
        f"step_{step:08d}.ckpt" for step in (4, 6, 7)
    ]
