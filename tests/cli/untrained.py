"""Runs of untrained models, small enough to draw from in a test."""

import torch

import unnoise.config.identity  # noqa: F401  (resolves run_directory)
from unnoise.config.compose import check_command_line
from unnoise.config.nodes import instantiate
from unnoise.models.build import named
from unnoise.models.diffusion import DiffusionModel
from unnoise.runs.checkpoints import LAYOUT
from unnoise.training.recipe import DiffusionRecipe, completed

TINY = (
    "network.channels=8 network.multipliers=[1,1] network.blocks=1 network.head_size=null "
    "network.attention_resolutions=[] batch_size=8 sampler=ddim sampler.steps=4 name=tiny"
).split()
PARTS = (*DiffusionModel.networks, *DiffusionModel.parts)
FEW = ["data.size=60", "data.validation_size=40"]  # sprites


def make_run(folder, *overrides, seed=0):
    """A run directory with a checkpoint: random weights, and others as their average."""
    few = [] if any(each.startswith("data=") for each in overrides) else FEW
    config, found = check_command_line("train", [*TINY, *few, *overrides])
    assert not found, found
    kinds = {key: instantiate(config[key]) for key in DiffusionRecipe.givers}
    config, state = completed(DiffusionRecipe, config, kinds), {}
    for number, prefix in enumerate(("model.", "ema.model.")):
        torch.manual_seed(2 * seed + number)
        parts = {key: instantiate(node) for key, node in config.items() if key in PARTS}
        model = DiffusionModel.of(parts, kinds["data"].shape)
        for parameter in model.parameters():
            parameter.data += 0.02 * torch.randn_like(parameter)
        state |= {prefix + key: value for key, value in model.state_dict().items()}
    (folder / "checkpoints").mkdir(parents=True)
    plain = {"config": config, "state_dict": state, "model": named(model), "layout": LAYOUT}
    torch.save(plain, folder / "checkpoints" / "step_00000001.ckpt")
    return folder
