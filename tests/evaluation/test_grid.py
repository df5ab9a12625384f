from pathlib import Path

import pytest
import torch
import yaml

from unnoise.config.compose import CONF, check_command_line
from unnoise.evaluation.grid import sample_sets, sampler_name
from unnoise.runs.checkpoints import find_checkpoints

OWN = yaml.safe_load((CONF / "sampler" / "ddim.yaml").read_text())
ONE = [Path("step_00000007.ckpt")]


def settings(*overrides, chosen=ONE):
    config, found = check_command_line("evaluate", ["run=x", *overrides])
    assert not found
    return list(sample_sets(config, OWN, chosen))


def test_the_run_s_own_sampler_is_the_default():
    ((name, setting),) = settings()
    assert name == f"ddim {OWN['steps']}"
    assert setting.recipe == OWN


def test_every_combination_comes_once_under_its_own_name():
    chosen = [Path("step_00000007.ckpt"), Path("step_00000009.ckpt")]
    found = settings(
        "steps=[5,10]", "guidance=[1,2,4]", "averaged=[true,false]", "seeds=[0,1]", chosen=chosen
    )
    assert len({name for name, _ in found}) == len(found) == 2 * 3 * 2 * 2 * 2
    assert ("ddim 10, guidance 4, step 9, last weights, seed 1") in dict(found)
    setting = dict(found)["ddim 10, guidance 4, step 9, last weights, seed 1"]
    assert (setting.recipe["steps"], setting.recipe["guidance"]["scale"]) == (10, 4.0)
    assert (setting.checkpoint, setting.averaged, setting.seed) == (chosen[1], False, 1)


def test_samplers_are_compared_at_equal_cost_and_the_baseline_keeps_its_steps():
    found = dict(settings("grid=samplers", "evaluations=[5,20]", "~samplers.unipc"))
    assert list(found) == [
        "ddim 5", "ddim 20", "heun 3", "heun 10", "dpm_solver 5", "dpm_solver 20", "ddpm",
    ]  # fmt: skip
    assert found["ddpm"].recipe["steps"] is None


@pytest.mark.parametrize("name", sorted(path.stem for path in CONF.glob("sampler/*.yaml")))
def test_a_sampler_is_called_as_its_config(name):
    node = yaml.safe_load((CONF / "sampler" / f"{name}.yaml").read_text())
    assert sampler_name({**node, "steps": 3}) == name


def test_checkpoints_are_found_by_step(tmp_path):
    for step in (10, 2000, 300):
        (tmp_path / "checkpoints").mkdir(exist_ok=True)
        torch.save({}, tmp_path / "checkpoints" / f"step_{step:08d}.ckpt")
    steps = {
        chosen if isinstance(chosen, str) else "some": [
            int(path.stem[5:]) for path in find_checkpoints(tmp_path, chosen)
        ]
        for chosen in ("newest", "all", [2000, 10])
    }
    assert steps == {"newest": [2000], "all": [10, 300, 2000], "some": [2000, 10]}
    with pytest.raises(ValueError, match="no checkpoint of step 5, but of 10, 300, 2000"):
        find_checkpoints(tmp_path, [5])
