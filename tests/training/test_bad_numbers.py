"""Numbers that are not finite: steps skipped, runs rolled back or ended, nothing broken saved."""

import copy
import json
import math
import shutil
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning import Callback, Trainer
from tiny import experiment
from two_processes import in_two_processes

from unnoise.data.stream import training_loader
from unnoise.diffusion.objectives import SimpleLoss
from unnoise.diffusion.times import LossSecondMomentTimes
from unnoise.runs.checkpoints import checkpoints
from unnoise.training.callbacks.checkpoints import Checkpoints, DurableCheckpointIO, NotFinite
from unnoise.training.callbacks.metrics import TrainingMetrics
from unnoise.training.callbacks.nan_guard import BadNumbers, leap
from unnoise.training.loop import fit
from unnoise.training.muon import Muon

BATCH = 8  # of tiny.experiment: step k sees the positions from 8·(k − 1) on
NAN, INF = math.nan, math.inf


class Poisoned(SimpleLoss):
    """Adds a number to the loss of some positions of the stream; its gradient stays finite.

    ``once`` does so only under the noise that the run begins with.
    """

    def __init__(self, positions, number=NAN, once=False, factor=1.0):
        self.positions, self.number = torch.as_tensor(list(positions)), number
        self.once, self.factor = once, factor

    def __call__(self, denoiser, schedule, x0, u, condition, noise):
        loss = super().__call__(denoiser, schedule, x0, u, condition, noise)
        if not torch.is_grad_enabled() or (self.once and noise.seed != 0):
            return loss
        hit = torch.isin(noise.ids, self.positions)
        return torch.where(hit, loss * self.factor, loss) + torch.where(hit, self.number, 0.0)


def step(*numbers):
    """The positions of whole steps."""
    return [p for k in numbers for p in range(BATCH * (k - 1), BATCH * k)]


class PoisonGradient(Callback):
    """Puts a number into one gradient at some steps."""

    def __init__(self, steps, number=NAN):
        self.steps, self.number = steps, number

    def on_before_optimizer_step(self, trainer, module, optimizer):
        if trainer.global_step + 1 in self.steps:
            next(module.model.parameters()).grad.view(-1)[3] = self.number


class PoisonWeight(Callback):
    """Puts a NaN into a weight after a step, of the first attempt only."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if trainer.global_step == self.step and module.rollbacks == 0:
            with torch.no_grad():
                next(module.model.parameters()).view(-1)[0] = NAN


class Watch(Callback):
    """Which steps changed weights, average, what times have learned, or the optimizer's state."""

    def __init__(self):
        self.changed = {}
        self.stood = []  # (rollbacks, step) at which nothing changed

    def _state(self, trainer, module):
        optimizer = trainer.optimizers[0].state_dict()["state"]
        return copy.deepcopy((module.state_dict(), optimizer))

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if batch_idx % trainer.accumulate_grad_batches == 0:
            self.before = self._state(trainer, module)

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            parts = zip(self.before, self._state(trainer, module), strict=True)
            changed = [not same(a, b) for a, b in parts]
            self.changed[trainer.global_step] = changed
            if not any(changed):
                self.stood.append((module.rollbacks, trainer.global_step))


class Killed(BaseException):
    """Ends a run where it stands, as a signal would."""


class KillAt(Callback):
    """Kills after a step of one attempt."""

    def __init__(self, step, rollbacks):
        self.at = step, rollbacks

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if (trainer.global_step, module.rollbacks) == self.at:
            raise Killed


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return a == b


def rows(run_dir):
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").open()]


def told(run_dir, metric):
    return {row["step"]: row[metric] for row in rows(run_dir) if metric in row}


def read(path):
    return json.loads(path.read_text())


def final(run_dir):
    content = torch.load(checkpoints(run_dir)[-1], weights_only=True)
    return content["global_step"], content["state_dict"], content["optimizer_states"][0]["state"]


def assert_same_run(a, b):
    (last, *states), (other_last, *others) = final(a), final(b)
    assert last == other_last
    assert all(same(x, y) for x, y in zip(states, others, strict=True))


@pytest.fixture(autouse=True)
def only_finite(monkeypatch):
    """No test of this file may save a weight that is not finite."""
    save = DurableCheckpointIO.save_checkpoint

    def checked(self, checkpoint, *args, **kwargs):
        weights = [w for w in checkpoint["state_dict"].values() if w.is_floating_point()]
        assert all(bool(w.isfinite().all()) for w in weights)
        return save(self, checkpoint, *args, **kwargs)

    monkeypatch.setattr(DurableCheckpointIO, "save_checkpoint", checked)


OPTIMIZERS = [
    partial(kind, lr=1e-2, fused=fused, **more)
    for kind, more in (
        (torch.optim.Adam, {}),
        (torch.optim.AdamW, {"weight_decay": 0.1}),
        (torch.optim.SGD, {"momentum": 0.9, "weight_decay": 0.1}),
        (Muon, {"momentum": 0.9}),
    )
    for fused in (False, True)
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
def test_a_bad_step_leaves_everything_as_it_was(tmp_path, optimizer):
    watch = Watch()
    bad = {"watch": watch, "poison": PoisonGradient({2, 4})}
    run = experiment(bad, optimizer=optimizer, objective=Poisoned(step(5)), max_steps=6)
    fit(run, {}, tmp_path, None)
    assert watch.changed == {k: [k not in (2, 4, 5)] * 2 for k in range(1, 7)}
    assert told(tmp_path, "train/skipped_steps") == {2: 1, 4: 2, 5: 3}
    assert final(tmp_path)[0] == 6


@pytest.mark.parametrize(
    "changes",
    [
        {"accumulate": 2},
        {"accumulate": 4, "conditional": True, "dropout": 0.2},
        {"times": LossSecondMomentTimes(2, 2), "accumulate": 2},
        {"precision": "bf16"},
        {"gradient_clip": None},
    ],
    ids=str,
)
@pytest.mark.parametrize("number", [NAN, INF, -INF])
def test_one_bad_sample_is_enough_in_any_setting(tmp_path, changes, number):
    """It is the first of its step: with accumulate, the other parts of the step are healthy."""
    watch = Watch()
    run = experiment(
        {"watch": watch}, objective=Poisoned([16], number), max_steps=4, **copy.deepcopy(changes)
    )
    fit(run, {}, tmp_path, None)
    assert watch.changed == {k: [k != 3] * 2 for k in range(1, 5)}
    assert told(tmp_path, "train/skipped_steps") == {3: 1}


def test_means_leave_skipped_steps_out(tmp_path):
    """The line of step 5 is of steps 2 to 5, of which 2 and 4 were taken."""
    every = {"metrics": TrainingMetrics(every=1)}
    bad = Poisoned(step(3, 5))
    fit(experiment(every, objective=bad), {}, tmp_path / "each", None)
    fit(experiment({"metrics": TrainingMetrics(every=5)}, objective=bad), {}, tmp_path / "a", None)
    each, means = told(tmp_path / "each", "train/loss"), told(tmp_path / "a", "train/loss")
    assert each.keys() == {1, 2, 4, 6, 7, 8, 9, 10}
    assert means[5] == pytest.approx((each[2] + each[4]) / 2, rel=1e-6)
    line = next(row for row in rows(tmp_path / "a") if row["step"] == 5 and "train/loss" in row)
    assert all(value is not None for key, value in line.items() if key.startswith("train/loss"))


def test_a_healthy_run_does_not_notice(tmp_path):
    fit(experiment(), {}, tmp_path / "a", None)
    run = experiment()
    del run.callbacks["bad_numbers"]
    fit(run, {}, tmp_path / "b", None)
    assert_same_run(tmp_path / "a", tmp_path / "b")
    assert not any(
        "skipped" in key or "spike" in key for row in rows(tmp_path / "a") for key in row
    )


def rolling(callbacks=None, **changes):
    """A run whose steps 5 and 6 are bad under its first noise: it goes back from 6 to 4."""
    objective = Poisoned(step(5, 6), once=True)
    guard = {"bad_numbers": BadNumbers(tolerated=1)}
    return experiment(guard | (callbacks or {}), objective=objective, **changes)


def test_too_many_bad_steps_roll_back_to_other_noise(tmp_path, capsys):
    fit(rolling(), {}, tmp_path / "a", None)
    manifest = read(tmp_path / "a" / "manifest.json")
    assert [(each["from"], each["to"]) for each in manifest["rollbacks"]] == [(6, 4)]
    assert "finished" in manifest
    assert "failed" not in manifest
    assert told(tmp_path / "a", "train/rollbacks") == {4: 1}
    assert told(tmp_path / "a", "train/skipped_steps") == {}, "those steps are not in the run"
    said = capsys.readouterr().err
    assert "the loss of step 5 is not finite: it is skipped" in said
    assert "going on from step 4 with other noise (rollback 1 of 2)" in said

    # the same as to go on from there as a run that was rolled back once, and only as one
    with pytest.raises(Killed):
        fit(experiment({"kill": KillAt(5, 0)}), {}, tmp_path / "b", None)
    shutil.copytree(tmp_path / "b", tmp_path / "c")
    for name, count in (("b", 1), ("c", 0)):
        path = tmp_path / name / "manifest.json"
        path.write_text(json.dumps(read(path) | {"rollbacks": manifest["rollbacks"][:count]}))
        fit(experiment(), {}, tmp_path / name, checkpoints(tmp_path / name)[-1])
    assert_same_run(tmp_path / "a", tmp_path / "b")
    assert not same(final(tmp_path / "a")[1], final(tmp_path / "c")[1])


def test_checkpoints_of_the_bad_stretch_are_left_behind(tmp_path):
    seen = []

    class Look(Callback):
        def on_train_start(self, trainer, module):
            seen.append([path.stem[-1] for path in checkpoints(tmp_path)])

    saved = Checkpoints(every=1, keep=20)
    fit(rolling({"checkpoints": saved, "look": Look()}), {}, tmp_path, None)
    assert seen[1] == ["0", "1", "2", "3", "4"], "5 was saved after a bad step"
    assert final(tmp_path)[0] == 10


@pytest.mark.parametrize("at", [(5, 1), (8, 1)])
def test_a_kill_after_a_rollback_keeps_its_noise(tmp_path, at):
    fit(rolling(), {}, tmp_path / "a", None)
    with pytest.raises(Killed):
        fit(rolling({"kill": KillAt(*at)}), {}, tmp_path / "b", None)
    assert len(read(tmp_path / "b" / "manifest.json")["rollbacks"]) == 1
    fit(rolling(), {}, tmp_path / "b", checkpoints(tmp_path / "b")[-1])
    assert_same_run(tmp_path / "a", tmp_path / "b")
    assert set(told(tmp_path / "b", "train/rollbacks")) == {4}
    assert len(read(tmp_path / "b" / "manifest.json")["rollbacks"]) == 1


def test_a_rollback_to_the_start(tmp_path):
    guard = {"bad_numbers": BadNumbers(tolerated=0)}
    fit(experiment(guard, objective=Poisoned([3], once=True)), {}, tmp_path, None)
    manifest = read(tmp_path / "manifest.json")
    assert [(each["from"], each["to"]) for each in manifest["rollbacks"]] == [(1, 0)]
    assert told(tmp_path, "train/rollbacks") == {0: 1}
    assert final(tmp_path)[0] == 10


def test_a_run_that_stays_bad_ends_and_names_the_pictures(tmp_path):
    run = experiment(
        {"bad_numbers": BadNumbers(tolerated=0, rollbacks=2)},
        objective=Poisoned([35]),
        accumulate=2,
    )
    with pytest.raises(
        FloatingPointError, match=r"after 2 rollbacks, the run ends.*bad_batch.json"
    ):
        fit(run, {}, tmp_path, None)
    report = read(tmp_path / "bad_batch.json")
    assert (report["step"], report["not_finite"], report["loss"]) == (5, "loss", "nan")
    assert (report["gradient_norm"], report["rollbacks"]) == ("nan", 2)
    assert [row["position"] for row in report["samples"]] == step(5)
    assert [row["position"] for row in report["samples"] if row["loss"] == "nan"] == [35]
    images = run.data.images("train")
    batch = list(zip(range(5), training_loader(images, batch_size=8, seed=0), strict=False))[4][1]
    for row, picture in zip(report["samples"], batch["image"], strict=True):
        assert torch.equal(images.read(torch.tensor([row["index"]]))[0], picture)
        assert 0 <= row["u"] < 1
    manifest = read(tmp_path / "manifest.json")
    assert manifest["failed"].startswith("NotFinite: 1 of the last 100 steps to step 5")
    assert len(manifest["rollbacks"]) == 2
    assert final(tmp_path)[0] == 4


def test_a_run_that_diverges_goes_back_to_before_it_did(tmp_path):
    """One step makes weights so large that all that follow are bad; 2 and 4 would be saved."""
    sgd = partial(torch.optim.SGD, lr=1e30)
    guard = {"bad_numbers": BadNumbers(tolerated=3)}
    broken = experiment(guard, optimizer=sgd, gradient_clip=None, warmup_steps=0)
    with pytest.raises(NotFinite, match=r"4 of the last 100 steps to step 5 .* after 2 rollbacks"):
        fit(broken, {}, tmp_path, None)
    rollbacks = read(tmp_path / "manifest.json")["rollbacks"]
    assert [(each["from"], each["to"]) for each in rollbacks] == [(5, 0), (5, 0)]


def test_a_gradient_that_is_not_finite_is_told_from_a_loss(tmp_path):
    guard = {
        "bad_numbers": BadNumbers(tolerated=0, rollbacks=0),
        "poison": PoisonGradient({3}, INF),
    }
    with pytest.raises(NotFinite):
        fit(experiment(guard), {}, tmp_path, None)
    report = read(tmp_path / "bad_batch.json")
    assert (report["not_finite"], report["gradient_norm"]) == ("gradient", "inf")
    assert report["loss"] < 10
    assert [row["position"] for row in report["samples"]] == step(3)


@pytest.mark.parametrize(("scale", "skipped"), [(2.0**16, {}), (1.0, {3: 1, 5: 2})])
def test_fp16_gradients_may_overflow_while_there_is_a_scale_to_lower(tmp_path, scale, skipped):
    class Scaled(Callback):
        def on_fit_start(self, trainer, module):
            trainer.precision_plugin.scaler = SimpleNamespace(get_scale=lambda: scale)

    poison = {"scaled": Scaled(), "poison": PoisonGradient({3, 5}, INF)}
    fit(experiment(poison), {}, tmp_path, None)
    assert told(tmp_path, "train/skipped_steps") == skipped


@pytest.mark.parametrize("at", [4, 5])
def test_a_broken_weight_rolls_back(tmp_path, at):
    """Poisoned at 4 it is met when step 4 is saved, before 5 when 6 is: after a skipped step."""
    poison = {"poison": PoisonWeight(at), "checkpoints": Checkpoints(every=2)}
    run = experiment()
    run.callbacks.clear()
    run.callbacks.update(bad_numbers=BadNumbers(), **poison)
    fit(run, {}, tmp_path, None)
    manifest = read(tmp_path / "manifest.json")
    assert [(each["from"], each["to"]) for each in manifest["rollbacks"]] == [
        {4: (4, 2), 5: (6, 4)}[at]
    ]
    assert final(tmp_path)[0] == 10


def test_without_a_checkpoint_there_is_no_way_back(tmp_path):
    run = experiment({"bad_numbers": BadNumbers(tolerated=0)}, objective=Poisoned([35]))
    del run.callbacks["checkpoints"]
    with pytest.raises(NotFinite, match="there is no checkpoint to go to"):
        fit(run, {}, tmp_path, None)
    assert read(tmp_path / "bad_batch.json")["step"] == 5


def test_old_bad_steps_are_forgotten(tmp_path):
    """Steps 2, 5 and 8: never two of three, always two of four."""
    bad = Poisoned(step(2, 5, 8))
    fit(experiment({"bad_numbers": BadNumbers(1, within=3)}, objective=bad), {}, tmp_path, None)
    assert told(tmp_path, "train/skipped_steps") == {2: 1, 5: 2, 8: 3}
    with pytest.raises(NotFinite, match="2 of the last 4 steps to step 5"):
        fit(
            experiment({"bad_numbers": BadNumbers(1, within=4, rollbacks=0)}, objective=bad),
            {},
            tmp_path / "b",
            None,
        )


SPIKED = Poisoned(step(40, 70), number=0.0, factor=1000.0)
"""At step 40 too few losses were seen to tell."""


def spiking(callbacks=None, objective=SPIKED):
    return experiment(
        {"checkpoints": Checkpoints(every=60), **(callbacks or {})},
        objective=objective,
        max_steps=75,
    )


def test_a_spike_is_logged_where_it_is_and_the_same_after_a_kill(tmp_path):
    fit(spiking({"metrics": TrainingMetrics(every=1)}), {}, tmp_path / "a", None)
    spikes = told(tmp_path / "a", "train/loss_spike")
    losses = np.log([*told(tmp_path / "a", "train/loss").values()])
    usual = np.median(losses[:69])
    deviation = 1.4826 * np.median(np.abs(losses[:69] - usual))
    assert spikes == {70: pytest.approx((losses[69] - usual) / deviation, rel=1e-4)}
    with pytest.raises(Killed):
        fit(spiking({"kill": KillAt(66, 0)}), {}, tmp_path / "b", None)
    fit(spiking(), {}, tmp_path / "b", checkpoints(tmp_path / "b")[-1])
    assert told(tmp_path / "b", "train/loss_spike") == spikes
    fit(spiking(objective=SimpleLoss()), {}, tmp_path / "c", None)
    assert told(tmp_path / "c", "train/loss_spike") == {}


@pytest.mark.parametrize(("batch", "found"), [(4, 400), (64, 6)])
@pytest.mark.parametrize("scale", [1e-6, 1, 1e6])
def test_a_leap_is_measured_by_how_losses_vary(batch, found, scale):
    """Means of as many losses as a batch has; a leap of 64 is no leap of 4."""
    spike = BadNumbers().spike
    draws = np.random.default_rng(0).lognormal(sigma=1.5, size=(3000, batch))
    losses = scale * draws.clip(max=10).mean(1)
    steps = range(100, len(losses))
    assert all(leap(losses[k], losses[k - 100 : k]) < spike for k in steps)
    usual = np.median(losses[:100])
    assert leap(found * usual, losses[:100]) > spike
    assert leap(10, [1.0] * 100) == 0


def on_ranks(folder):
    """One of two processes: a run that goes back once, and one that ends."""
    watch = Watch()
    trainer = partial(Trainer, accelerator="cpu", strategy="ddp", devices=2)
    going_back = experiment(
        {"bad_numbers": BadNumbers(tolerated=1), "watch": watch},
        objective=Poisoned([23, 35], once=True),
        trainer=trainer,
    )
    fit(going_back, {}, folder.parent / "back", None)
    guard = {"bad_numbers": BadNumbers(tolerated=0, rollbacks=0)}
    with pytest.raises(NotFinite):
        fit(
            experiment(guard, objective=Poisoned([23]), trainer=trainer),
            {},
            folder.parent / "ended",
            None,
        )
    return watch.stood, final(folder.parent / "back")[1]


@pytest.mark.slow
def test_two_ranks_skip_roll_back_and_end_together(tmp_path):
    """Rows 4 to 7 of each batch are rank 1's: 23 of step 3 is; 35 of step 5 is rank 0's."""
    found = in_two_processes(on_ranks, tmp_path / "out")
    for stood, _ in found:
        assert stood == [(0, 3)]
    assert same(found[0][1], found[1][1])
    (rollback,) = read(tmp_path / "back" / "manifest.json")["rollbacks"]
    assert (rollback["from"], rollback["to"]) == (5, 2)
    samples = read(tmp_path / "ended" / "bad_batch.json")["samples"]
    assert [row["position"] for row in samples] == step(3)
    assert [row["position"] for row in samples if row["loss"] == "nan"] == [23]
