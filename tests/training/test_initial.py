"""A run that starts from the weights of another one."""

import pytest
import torch
from tiny import experiment

from unnoise.config.compose import check_command_line
from unnoise.config.typed import in_full
from unnoise.runs.averaged import averaged
from unnoise.training.check import problems_of
from unnoise.training.initial import Initial
from unnoise.training.loop import fit

TINY = (
    "data.size=40 data.validation_size=8 network.channels=8 network.multipliers=[1] "
    "network.blocks=1 network.attention_resolutions=[] network.head_size=null "
    "prediction=v objective=v batch_size=8 max_steps=2 logger=none trainer=cpu"
).split()


def problems(*overrides):
    """What is wrong with a command line, with the config."""
    config, found = check_command_line("train", in_full([*TINY, *overrides]), sweep=False)
    return [str(each) for each in (*found, *problems_of(config))], config


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of ``TINY`` after two steps."""
    from unnoise.training.recipe import DiffusionRecipe
    from unnoise.training.start import prepared

    wrong, config = problems()
    assert wrong == []
    recipe = prepared(config)
    assert isinstance(recipe, DiffusionRecipe)
    return fit(recipe, config, tmp_path_factory.mktemp("run"), None)


def first_weights(folder):
    """Of the checkpoint of step 0: raw and averaged."""
    state = torch.load(folder / "checkpoints" / "step_00000000.ckpt", weights_only=True)
    parts = "model.", "ema.model."
    return [
        {k.removeprefix(part): v for k, v in state["state_dict"].items() if k.startswith(part)}
        for part in parts
    ]


def test_it_starts_from_the_averaged_weights(run, tmp_path):
    from unnoise.training.start import prepared

    wrong, config = problems(f"from={run}", "max_steps=1", "seed=7")
    assert wrong == []
    assert config["initial"]["digest"] == averaged(run).digest
    fit(prepared(config), config, tmp_path, None)
    for state in first_weights(tmp_path):
        assert state.keys() == averaged(run).weights.keys()
        assert all(torch.equal(state[key], value) for key, value in averaged(run).weights.items())


def test_what_a_weight_means_must_be_the_same(run):
    wrong, _ = problems(f"from={run}", "network.norm_groups=16", "prediction=flow", "schedule=edm")
    schedule, network, prediction = wrong
    assert "schedule: has other noise levels than" in schedule
    assert "network.norm_groups: is 16, but the weights of" in network
    assert "trained with 32" in network
    assert "prediction._target_: is" in prediction


def test_where_and_how_it_trains_is_free(run):
    free = "network.dropout=0.2", "objective=x0", "schedule=cosine", "schedule.T=500"
    assert problems(f"from={run}", *free[:2])[0] == []
    wrong, _ = problems(f"from={run}", *free)
    assert ["other noise levels" in each for each in wrong] == [True]


def test_data_of_another_shape_are_refused(run):
    wrong, _ = problems(f"from={run}", "data=mnist")
    assert any("was trained on data of the shape (3, 16, 16)" in each for each in wrong)


def test_a_run_that_is_not_there_is_refused():
    wrong, _ = problems("from=nowhere")
    assert any("there is no run or checkpoint nowhere" in each for each in wrong)


def test_a_run_that_has_gone_since_is_one_line(run):
    _, config = problems(f"from={run}")
    config["initial"]["run"] = "gone/checkpoints/step_00000002.ckpt"
    (found,) = map(str, problems_of(config))
    assert found.startswith("from: there is no run or checkpoint gone")


def test_other_weights_than_those_of_the_digest_are_refused(run):
    with pytest.raises(ValueError, match="are not those that the run started from"):
        Initial("0" * 16, str(run)).check()


def test_a_run_without_the_key_starts_at_random():
    assert experiment().initial is None


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["objective=consistency"], "sampler: goes step by step"),
        (["sampler=consistency"], "sampler: takes means for samples"),
        (["objective=consistency", "prediction=x0"], "prediction: X0Prediction does not give back"),
        (["objective=consistency", "prediction=epsilon"], "prediction: EpsilonPrediction enlarges"),
        (["objective=consistency", "learned_variance=true"], "objective: leaves the learned"),
        (
            ["objective=consistency"],
            "objective.diffusion_steps: 0, so that what is tuned are random",
        ),
        (["objective=consistency", "max_steps=3"], "objective.every: the last of 8 stages would"),
    ],
)
def test_a_consistency_model_fits_its_parts(overrides, message):
    wrong, _ = problems(*overrides)
    assert any(message in each for each in wrong), wrong


@pytest.mark.parametrize("prediction", ["v", "flow", "edm"])
def test_a_consistency_model_is_right(prediction):
    wrong, _ = problems("objective=consistency", "sampler=consistency", f"prediction={prediction}",
                        "objective.diffusion_steps=1", "objective.stages=1",
                        "callbacks.samples.sampler.steps=4")  # fmt: skip
    assert wrong == []
