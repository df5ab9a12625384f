"""Training by likelihood: its loss, and that its runs are as trustworthy as any."""

import json
from functools import partial

import pytest
import torch
from lightning import Callback, Trainer
from tiny import experiment
from two_processes import in_two_processes, meet_anew

from unnoise.networks.adversarial import LatentSampler
from unnoise.networks.conditioning import ClassConditioner, ConditionShape
from unnoise.networks.flows import RealNVP, TarFlow
from unnoise.networks.variational import VariationalNetwork
from unnoise.training.likelihood_recipe import FlowRecipe, VariationalRecipe
from unnoise.training.loop import fit

DIFFUSION = (
    *("schedule", "prediction", "objective", "times", "learned_variance", "autoencoder"),
    *("conditioning", "condition_dropout", "sampler", "network", "latent_cache", "first_stage"),
    "initial",
)


def vae():
    condition = ConditionShape(vector=4)
    network = VariationalNetwork((3, 16, 16), 6, condition, latent=4, channels=4, scales=1)
    keys = {"network": network, "beta": 2.0, "likelihood": "logistic", "scale": "element"}
    return VariationalRecipe, keys


def flow(kind, **sizes):
    network = kind((3, 16, 16), ConditionShape(vector=4), **sizes)
    return FlowRecipe, {"network": network, "augmentation": 0.1}


FAMILIES = {
    "vae": vae,
    "tarflow": partial(flow, TarFlow, patch=4, width=8, blocks=2, layers=1, heads=2),
    "realnvp": partial(flow, RealNVP, width=4, couplings=2, scales=1),
}


def recipe(kind, callbacks=None, **changes):
    torch.manual_seed(0)
    shared = {k: v for k, v in vars(experiment(callbacks)).items() if k not in DIFFUSION}
    torch.manual_seed(0)
    family, keys = FAMILIES[kind]()
    own = {"sampler": LatentSampler(), "condition_dropout": 0}
    own |= {"conditioning": ClassConditioner(classes=5, width=4), "flip": False}
    return family(**(shared | own | keys | changes))


class Keep(Callback):
    def on_train_batch_end(self, trainer, module, *_):
        self.module = module


def trained(kind, folder, devices):
    keep = Keep()
    parts = {"strategy": "ddp", "devices": devices} if devices > 1 else {"devices": 1}
    run = recipe(
        kind,
        {"keep": keep},
        trainer=partial(Trainer, accelerator="cpu", **parts),
        max_steps=4,
        validate_every=2,
        validation_images=7,
        optimizer=partial(torch.optim.SGD, lr=0.1),
    )
    meet_anew()
    fit(run, {}, folder, None)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").open()]
    losses = [row["validation/loss"] for row in rows if "validation/loss" in row]
    return {k: v.clone() for k, v in keep.module.state_dict().items()}, losses


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_step_is_the_mean_of_the_models_loss(kind):
    module = recipe(kind).module({})
    for weight in module.model.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    batch = {
        "image": torch.randint(256, (6, 3, 16, 16), dtype=torch.uint8),
        "label": torch.arange(6) % 5,
        "position": torch.arange(6),
    }
    found = module.training_step(batch, 0)
    loss, terms = module.model.loss(batch, module.training_noise(batch, 0))
    torch.testing.assert_close(found["loss"], loss.mean())
    assert module.of_step.keys() == terms.keys()
    found["loss"].backward()
    assert all(p.grad is not None for p in module._trained)


def by_two(folder):
    return trained(folder.name, folder, 2)


@pytest.mark.slow
@pytest.mark.parametrize("kind", FAMILIES)
def test_two_processes_are_one(kind, tmp_path):
    alone, losses = trained(kind, tmp_path / "one", 1)
    for state, found in in_two_processes(by_two, tmp_path / kind):
        for name, value in alone.items():
            torch.testing.assert_close(state[name], value, rtol=1e-4, atol=1e-5, msg=name)
        if found:  # rank 0 writes
            assert found == pytest.approx(losses, rel=1e-4)
