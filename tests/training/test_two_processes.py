"""Two processes of half the batch each are one process of the whole."""

import json
import os
from functools import partial

import pytest
import torch
from lightning import Callback, Trainer
from seeing import find_tiny
from tiny import experiment
from two_processes import in_two_processes, meet_anew

from unnoise.diffusion.samplers import DDIM, Sampler
from unnoise.diffusion.times import LossSecondMomentTimes
from unnoise.evaluation import evaluator
from unnoise.evaluation.estimates import KINDS
from unnoise.training.callbacks.likelihood import BitsPerDim
from unnoise.training.callbacks.quality import Quality
from unnoise.training.loop import fit

STEPS = 6
pytestmark = pytest.mark.slow


class Keep(Callback):
    """What is left of the module at the end."""

    def on_fit_end(self, trainer, module):
        self.state = {key: value.clone() for key, value in module.state_dict().items()}


def train(folder, devices, **changes):
    """A run's last state; its metrics are in ``folder``."""
    evaluator.find_extractor = find_tiny
    os.environ["UNNOISE_CACHE"] = str(folder / "cache")
    keep, sampler = Keep(), Sampler(DDIM(), steps=3)
    measured = {
        "keep": keep,
        "quality": Quality(sampler, every=4, count=13, metrics=KINDS, batch_size=3),
        "bits": BitsPerDim(every=4, count=7, steps=4, batch_size=2),
    }
    parts = {"strategy": "ddp", "devices": devices} if devices > 1 else {"devices": 1}
    run = experiment(
        measured,
        trainer=partial(Trainer, accelerator="cpu", **parts),
        max_steps=STEPS,
        validate_every=4,
        validation_images=7,
        **changes,
    )
    meet_anew()
    fit(run, {}, folder, None)
    return keep.state


def still(folder, devices):
    """A run that stays where it starts, so that all that is measured is of the same weights."""
    return train(folder, devices, optimizer=partial(torch.optim.SGD, lr=0.0))


def learning(folder, devices):
    """A run whose times learn from the losses."""
    times = LossSecondMomentTimes(2, 3)
    sgd = partial(torch.optim.SGD, lr=0.1)  # Adam would blow up rounding where gradients vanish
    return train(folder, devices, times=times, optimizer=sgd, accumulate=2)


def both(folder):
    """Both runs, as one of two processes."""
    return still(folder / "still", 2), learning(folder / "learning", 2)


def metrics(folder):
    """By step, without what depends on the clock."""
    found = {}
    for line in (folder / "metrics.jsonl").open():
        row = json.loads(line)
        found.setdefault(row["step"], {}).update(
            {k: v for k, v in row.items() if k != "time" and "second" not in k}
        )
    return found


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """(Folder, states) of the one process and of the two."""
    one, two = (tmp_path_factory.mktemp(name) for name in ("one", "two"))
    found = in_two_processes(both, two)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNNOISE_CACHE", str(one / "cache"))
        patch.setattr(evaluator, "find_extractor", find_tiny)
        states = still(one / "still", 1), learning(one / "learning", 1)
    return (one, states), (two, found)


@pytest.mark.parametrize("kind", ["quality", "validation"])
def test_what_is_measured_is_what_one_process_measures(runs, kind):
    (one, _), (two, _) = runs
    alone, shared = metrics(one / "still"), metrics(two / "still")
    assert alone.keys() == shared.keys()
    for step in (4, STEPS):
        expected = {key: value for key, value in alone[step].items() if key.startswith(kind)}
        found = {key: value for key, value in shared[step].items() if key.startswith(kind)}
        assert len(expected) > 8 if kind == "validation" else len(expected) == len(KINDS)
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_times_learn_the_same_on_both_and_as_in_one(runs):
    (_, (_, alone)), (_, ((_, first), (_, second))) = runs
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert torch.equal(first["times.observed"], alone["times.observed"])
    assert int(alone["times.observed"].sum()) == 8 * STEPS
    for key in alone:
        torch.testing.assert_close(first[key], alone[key], rtol=1e-4, atol=1e-5)


def test_losses_of_training_are_those_of_one_process(runs):
    (one, _), (two, _) = runs
    alone, shared = metrics(one / "learning"), metrics(two / "learning")
    for step in (1, 2, STEPS):
        assert shared[step] == pytest.approx(alone[step], rel=1e-4)
