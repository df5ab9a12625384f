"""The validation loss: by noise level, on the same noise each time, and once more at the end."""

import json

import pytest
import torch
from lightning.pytorch.strategies import SingleDeviceStrategy
from tiny import experiment

from unnoise.diffusion import schedules
from unnoise.diffusion.denoiser import Denoiser, VPrediction
from unnoise.diffusion.levels import NoiseLevel
from unnoise.diffusion.noise import Noise
from unnoise.diffusion.objectives import HybridLoss, SimpleLoss, VariationalBound, WeightedLoss
from unnoise.diffusion.schedules import EDMSchedule, RectifiedFlow
from unnoise.diffusion.weights import VWeight
from unnoise.training.loop import fit
from unnoise.training.validation import EDGES, NAMES, LossBySNR

ALONE = SingleDeviceStrategy(torch.device("cpu"))


def at(log_snr):
    log_snr = torch.tensor(log_snr, dtype=torch.float64)
    return NoiseLevel(log_snr, log_snr.sigmoid().sqrt(), (-log_snr).sigmoid().sqrt())


def validation_rows(run_dir):
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").open()]
    return [row for row in rows if "validation/loss" in row]


def test_bins_are_named_from_noisy_to_clean_and_sort_so():
    assert NAMES[0] == "validation/loss_snr1[-inf,-6]"
    assert NAMES[-1] == "validation/loss_snr6[6,inf]"
    assert sorted(NAMES) == list(NAMES)


def test_each_loss_counts_in_the_bin_of_its_level():
    losses = LossBySNR(torch.device("cpu"))
    losses.add(at([-50.0, -5.9, 0.1]), torch.tensor([1.0, 2.0, 3.0]))
    losses.add(at([2.9, 7.0, -3.1]), torch.tensor([5.0, 7.0, 10.0]))
    found = losses.means(ALONE)
    expected = {NAMES[0]: 1.0, NAMES[1]: 6.0, NAMES[3]: 4.0, NAMES[5]: 7.0}
    assert {k: float(v) for k, v in found.items() if "snr" in k} == expected
    assert float(found["validation/loss"]) == 28 / 6


def test_nothing_left_of_the_picture_is_the_noisiest_bin():
    zero = NoiseLevel(torch.zeros(1), torch.zeros(1), torch.ones(1))
    losses = LossBySNR(torch.device("cpu"))
    losses.add(zero, torch.ones(1))
    assert NAMES[0] in losses.means(ALONE)


class Spy(torch.nn.Module):
    """A network that remembers what it was told of the level."""

    def forward(self, x, t, condition):
        self.t = t
        return torch.cat((x, x), 1)


@pytest.mark.parametrize("schedule", [schedules.linear(T=20), EDMSchedule(), RectifiedFlow()])
@pytest.mark.parametrize(
    "objective", [SimpleLoss(), WeightedLoss(VWeight()), VariationalBound(), HybridLoss()]
)
def test_an_objective_knows_the_levels_it_asks_at(objective, schedule):
    spy, ids = Spy(), torch.arange(8)
    u = (ids + 0.5) / 8
    denoiser = Denoiser(spy, VPrediction(), learned_variance=True)
    objective(denoiser, schedule, torch.zeros(8, 1, 2, 2), u, None, Noise(0, ids))
    torch.testing.assert_close(objective.level(schedule, u).t, spy.t)


def test_the_same_weights_have_the_same_losses_at_every_call(tmp_path):
    run = experiment(max_steps=6, validate_every=2, validation_images=8, ema_decay=0.0)
    frozen = experiment(
        optimizer=lambda p: torch.optim.SGD(p, lr=0.0),
        max_steps=6, validate_every=2, batch_size=5,
    )  # fmt: skip
    fit(run, {}, tmp_path / "learns", None)
    fit(frozen, {}, tmp_path / "frozen", None)
    learns, still = (validation_rows(tmp_path / name) for name in ("learns", "frozen"))
    assert [row["step"] for row in still] == [2, 4, 6]
    numbers = [{k: v for k, v in row.items() if k.startswith("validation")} for row in still]
    assert numbers[0] == numbers[1] == numbers[2]
    assert learns[0]["validation/loss"] != learns[1]["validation/loss"]


def test_bins_of_a_run_hold_each_picture_once(tmp_path):
    """Weighted with how many pictures they hold, the bins' means are the mean over all."""
    run = experiment(max_steps=1, validation_images=7, batch_size=3)
    fit(run, {}, tmp_path, None)
    (row,) = validation_rows(tmp_path)
    from unnoise.training.module import hashed

    noise = Noise(hashed(0, "validation"), torch.arange(7))
    level = run.objective.level(run.schedule, noise.uniform("time"))
    k = torch.bucketize(level.log_snr, torch.tensor(EDGES, dtype=torch.float64), right=True)
    counts = {name: int((k == i).sum()) for i, name in enumerate(NAMES)}
    assert {name for name, n in counts.items() if n} == {key for key in row if "snr" in key}
    total = sum(n * row[name] for name, n in counts.items() if n)
    assert row["validation/loss"] == pytest.approx(total / 7, rel=1e-6)


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({"max_steps": 3, "validate_every": 1000}, [3]),
        ({"max_steps": 5, "validate_every": 2}, [2, 4, 5]),
        ({"max_steps": 4, "validate_every": 2, "accumulate": 2}, [2, 4]),
    ],
    ids=str,
)
def test_what_came_out_is_validated(tmp_path, changes, steps):
    fit(experiment(**changes), {}, tmp_path, None)
    assert [row["step"] for row in validation_rows(tmp_path)] == steps


def test_the_objective_of_any_prediction_is_validated(tmp_path):
    run = experiment(
        objective=VariationalBound(), prediction=VPrediction(), schedule=EDMSchedule(), max_steps=1
    )
    fit(run, {}, tmp_path, None)
    (row,) = validation_rows(tmp_path)
    assert all(value > 0 for key, value in row.items() if "snr" in key)
