"""A run that keeps averages, and others that are made of them."""

import pytest
import torch
from lightning import Callback
from tiny import experiment

from unnoise.config.compose import check_command_line
from unnoise.models.averages import NoAverage, gamma_of, reconstructed
from unnoise.models.trained import TrainedModel
from unnoise.runs.checkpoints import checkpoints, read_checkpoint
from unnoise.training.callbacks.checkpoints import Checkpoints
from unnoise.training.loop import fit
from unnoise.training.start import prepared

STEPS = 24
TINY = (
    "data.size=40 data.validation_size=8 network.channels=8 network.multipliers=[1] "
    "network.blocks=1 network.attention_resolutions=[] network.head_size=null "
    f"batch_size=8 max_steps={STEPS} logger=none trainer=cpu ema_lengths=[0.1,0.2]"
).split()


class Keep(Callback):
    """The weights after each step."""

    def __init__(self):
        self.states = []

    def on_train_batch_end(self, trainer, module, *_):
        self.states.append({k: v.double().clone() for k, v in module.model.named_parameters()})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Its folder, and the weights of each step."""
    config, found = check_command_line("train", TINY, sweep=False)
    assert found == []
    keep, recipe = Keep(), prepared(config)
    recipe.callbacks.clear()  # they would draw pictures
    recipe.callbacks.update(keep=keep, checkpoints=Checkpoints(every=2, keep=99))
    return fit(recipe, config, tmp_path_factory.mktemp("run"), None), keep.states


def average(states, length):
    """By the formula: p is τ^(γ+1) − (τ − 1)^(γ+1) over t^(γ+1)."""
    t, power = len(states), gamma_of(length) + 1
    p = [(k**power - (k - 1) ** power) / t**power for k in range(1, t + 1)]
    return {
        key: sum(x * state[key] for x, state in zip(p, states, strict=True)) for key in states[0]
    }


def distance(model, states, length):
    """From the exact average, over that of the last weights from it."""
    exact, last = average(states, length), states[-1]
    own = {k: p.detach().double() for k, p in model.named_parameters()}
    off = sum((own[k] - exact[k]).square().sum() for k in own)
    way = sum((last[k] - exact[k]).square().sum() for k in last)
    return float((off / way).sqrt())


@pytest.mark.parametrize(("length", "off"), [(0.1, 1e-4), (0.2, 1e-4), (0.15, 0.03), (0.25, 0.1)])
def test_an_average_of_any_length_is_that_of_the_weights(run, length, off):
    folder, states = run
    trained = TrainedModel.load(folder, averaged=length, device="cpu")
    assert distance(trained.model, states, length) < off


def test_it_is_of_the_checkpoint_and_of_those_before_it(run):
    folder, states = run
    middle = checkpoints(folder)[6]
    trained = TrainedModel.load(middle, averaged=0.15, device="cpu")
    assert distance(trained.model, states[:12], 0.15) < 0.05


def test_the_run_s_own_average_is_the_same_as_without(run, tmp_path):
    without = experiment(max_steps=4)
    fit(without, {}, tmp_path / "a", None)
    fit(experiment(max_steps=4, ema_lengths=[0.1]), {}, tmp_path / "b", None)
    one, other = (read_checkpoint(checkpoints(tmp_path / k)[-1])["state_dict"] for k in "ab")
    assert one.keys() < other.keys()
    assert all(torch.equal(value, other[key]) for key, value in one.items())


def test_a_run_without_is_refused_in_words(tmp_path):
    fit(experiment(max_steps=2), {}, tmp_path, None)
    path = checkpoints(tmp_path)[-1]
    with pytest.raises(NoAverage, match=r"train with ema_lengths=\[0.05,0.1\]"):
        reconstructed(path, read_checkpoint(path), 0.1)


def test_a_length_out_of_reach_is_refused_in_words(run):
    with pytest.raises(NoAverage, match=r"make none of length 0\.01"):
        TrainedModel.load(run[0], averaged=0.01, device="cpu")


@pytest.mark.parametrize(("value", "told"), [("0.3", "must be < 0.288"), ("0.0", "must be > 0")])
def test_lengths_out_of_range_are_refused(value, told):
    from unnoise.config.schema import problems
    from unnoise.training.recipe import DiffusionRecipe

    config, _ = check_command_line("train", [f"ema_lengths=[{value}]"], sweep=False)
    found = problems(config, DiffusionRecipe)
    assert any(each.key.startswith("ema_lengths") and told in each.message for each in found)
