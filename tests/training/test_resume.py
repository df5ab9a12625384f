"""A run that was killed and resumed is the run that was not, bit for bit."""

import gc
import json
import os
import random
import signal
import time
from functools import partial

import pytest
import torch
from lightning import Callback
from tiny import experiment

from unnoise.data import stream as loading
from unnoise.diffusion.consistency import ConsistencyLoss
from unnoise.diffusion.denoiser import VPrediction
from unnoise.diffusion.times import LossSecondMomentTimes, UniformTimes
from unnoise.runs.checkpoints import checkpoints, newest_whole
from unnoise.runs.layout import step_of
from unnoise.training.loop import fit

IMPORTANCE = partial(LossSecondMomentTimes, 2, 2)
TUNED = ConsistencyLoss(every=2, diffusion_steps=3)


@pytest.fixture(autouse=True)
def ended():
    """Let go of what a killed run holds: its workers would keep this process from ending."""
    yield
    gc.collect()


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
    fit(experiment(**fresh(changes)), {}, tmp_path / "b", newest_whole(tmp_path / "b"))


# 40 images in batches of 8: an epoch is 5 steps. Checkpoints at 0, 2, 4, … and 10, the end;
# validation after 3, 6 and 9, in as many batches as a step has parts.
WHERE = {"before": 10, "step": 10, "after": 10, "validation": 3}


def drawn_kills():
    """20 of them: five at each hook, with and without workers, at a time that is drawn."""
    draw = random.Random(2026)
    for k in range(20):
        hook, workers, parts = list(WHERE)[k % 4], (0, 2)[k // 4 % 2], draw.choice((1, 2))
        times = WHERE[hook] if hook == "step" else WHERE[hook] * parts
        yield hook, draw.randint(1, times), workers, parts


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Runs that nothing ended, by the number of parts of a step."""
    folders = {parts: tmp_path_factory.mktemp("whole") for parts in (1, 2)}
    for parts, folder in folders.items():
        fit(experiment(accumulate=parts, validate_every=3), {}, folder, None)
    return folders


@pytest.mark.parametrize(("hook", "n", "workers", "parts"), drawn_kills())
def test_killed_anywhere(tmp_path, whole, hook, n, workers, parts):
    kill_and_resume(tmp_path, hook, n, workers=workers, accumulate=parts, validate_every=3)
    assert_same_run(whole[parts], tmp_path / "b")
    assert losses(whole[parts]) == losses(tmp_path / "b")


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("until", [2, 3, 5])  # at a line of the log, a validation, an epoch's end
def test_a_run_that_ended_before_its_end_goes_on_as_if_it_had_not(tmp_path, whole, until, parts):
    way = {"accumulate": parts, "validate_every": 3}
    for _ in range(2):  # the second one is there already
        start = newest_whole(tmp_path / "b") if (tmp_path / "b").exists() else None
        with pytest.raises(SystemExit, match="0"):
            fit(experiment(until=until, **way), {}, tmp_path / "b", start)
        assert step_of(checkpoints(tmp_path / "b")[-1]) == until
    fit(experiment(**way), {}, tmp_path / "b", newest_whole(tmp_path / "b"))
    assert_same_run(whole[parts], tmp_path / "b")
    (steps, values), (others, other_values) = losses(whole[parts]), losses(tmp_path / "b")
    assert steps == others
    cut = until + 1 if until % 2 else None  # a line is the mean since the last one, or the start
    assert {k: v for k, v in values.items() if k != cut} == {
        k: v for k, v in other_values.items() if k != cut
    }


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("hook", "n", "parts"),
    [
        ("before", 1, 1),  # before anything
        ("after", 1, 1),  # before the second checkpoint
        ("before", 8, 2),  # in the middle of an accumulation
        ("after", 7, 2),
        ("before", 5, 1),  # at the last batch of an epoch
        ("after", 5, 1),
        ("after", 10, 1),  # after the last
        ("validation", 2, 1),
        ("validation", 3, 2),
    ],
)
def test_killed_where_it_hurts(tmp_path, whole, hook, n, parts, workers):
    kill_and_resume(tmp_path, hook, n, workers=workers, accumulate=parts, validate_every=3)
    assert_same_run(whole[parts], tmp_path / "b")


@pytest.mark.parametrize(
    "changes",
    [
        {"dropout": 0.3},
        {"conditional": True},
        {"batch_size": 40},  # every step ends an epoch
        {"batch_size": 6},  # epochs end inside batches
        {"batch_size": 20, "workers": 2},  # step 4, where it goes on, ends an epoch
        {"precision": "bf16"},
        {"times": IMPORTANCE},
        {"times": IMPORTANCE, "accumulate": 2},
        {"dropout": 0.3, "accumulate": 2, "prediction": VPrediction(), "objective": TUNED},
    ],
    ids=" ".join,
)
def test_killed_in_any_setting(tmp_path, changes):
    fit(experiment(**fresh(changes)), {}, tmp_path / "a", None)
    kill_and_resume(tmp_path, "step", 5, **changes)
    assert_same_run(tmp_path / "a", tmp_path / "b")


class Reached(BaseException):
    """The first step is about to be taken."""


class Start(Callback):
    """Ends a run at its first batch, and keeps which one that is and when it came."""

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.positions, self.at = batch["position"], time.perf_counter()
        raise Reached


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_goes_on_at_step_a_million_at_once(tmp_path, monkeypatch, workers):
    """Neither data nor numbers are spun through: what is asked of the stream is counted."""
    fit(experiment(max_steps=2), {}, tmp_path, None)
    there = tmp_path / "checkpoints" / "step_01000000.ckpt"
    changes = {"max_steps": 10**6 + 1, "validate_every": 10**6 + 3, "workers": workers}
    content = torch.load(newest_whole(tmp_path), weights_only=True)
    content["global_step"] = 10**6
    progress = content["loops"]["fit_loop"]["epoch_loop.automatic_optimization.optim_progress"]
    progress["optimizer"]["step"]["total"] = dict.fromkeys(("ready", "completed"), 10**6)
    torch.save(content, there)
    asked, drawn = [], []

    def counted(share):
        for positions in share_of(share):
            asked.append(positions)
            yield positions

    def generator(*key):
        drawn.append(key)
        return loading_generator(*key)

    share_of, loading_generator = loading._Share.__iter__, loading._generator
    monkeypatch.setattr(loading._Share, "__iter__", counted)
    monkeypatch.setattr(loading, "_generator", generator)
    start = Start()
    begun = time.perf_counter()
    with pytest.raises(Reached):
        fit(experiment({"start": start}, **changes), {}, tmp_path, there)
    assert start.positions.tolist() == list(range(8 * 10**6, 8 * 10**6 + 8))
    assert len(asked) <= 2 + 2 * workers  # the batch, one ahead, and two that each worker reads
    assert len(drawn) <= 1  # the order of that epoch (by a worker, where there are some)
    print(f"first batch after {start.at - begun:.2f} s with {workers} workers")


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
@pytest.mark.parametrize(
    ("hook", "n", "step"), [("before", 11, 6), ("step", 5, 5), ("before", 10, 5)]
)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_at_a_whole_step_and_the_run_resumes(tmp_path, number, hook, n, step):
    before = signal.getsignal(number)
    fit(experiment(accumulate=2), {}, tmp_path / "a", None)
    interrupted = experiment({"stop": Interrupt(number, hook, n)}, accumulate=2)
    with pytest.raises(SystemExit) as stop:
        fit(interrupted, {}, tmp_path / "b", None)
    assert stop.value.code == 128 + number
    newest = checkpoints(tmp_path / "b")[-1]
    assert newest.name == f"step_{step:08d}.ckpt"
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
