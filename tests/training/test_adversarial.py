"""A GAN's training step, and that its runs are as trustworthy as those of a diffusion model."""

import json
from functools import partial

import pytest
import torch
from lightning import Callback, Trainer
from tiny import experiment
from two_processes import in_two_processes, meet_anew

from unnoise.diffusion.noise import Noise
from unnoise.models.gan import generator_loss, gradient_penalty, relativistic
from unnoise.networks.adversarial import Discriminator, Generator, LatentSampler
from unnoise.networks.conditioning import ClassConditioner, ConditionShape
from unnoise.runs.checkpoints import checkpoints
from unnoise.training.callbacks.checkpoints import Checkpoints
from unnoise.training.loop import fit
from unnoise.training.recipe import AdversarialRecipe

DIFFUSION = (
    *("schedule", "prediction", "objective", "times", "learned_variance", "autoencoder"),
    *("conditioning", "condition_dropout", "sampler", "network", "latent_cache", "first_stage"),
    "initial",
)


def recipe(callbacks=None, **changes):
    torch.manual_seed(0)
    shared = {k: v for k, v in vars(experiment(callbacks)).items() if k not in DIFFUSION}
    torch.manual_seed(0)
    own = {
        "network": Generator((3, 16, 16), latent=4, channels=4, scales=1),
        "discriminator": Discriminator((3, 16, 16), channels=4, scales=1),
        "gamma": 0.5,
        "sampler": LatentSampler(),
        "conditioning": None,
        "condition_dropout": 0,
        "optimizer": partial(torch.optim.Adam, lr=1e-2, betas=(0.0, 0.99)),
    }
    return AdversarialRecipe(**(shared | own | changes))


class Keep(Callback):
    def on_train_batch_end(self, trainer, module, *_):
        self.step, self.module = trainer.global_step, module


def module():
    network = recipe().module({})
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    return network


def test_each_network_has_the_gradient_of_its_own_loss():
    """Of the one loss: the discriminator that of its loss and penalties, the generator its own."""
    both = module()
    image = torch.randint(256, (6, 3, 16, 16), dtype=torch.uint8)
    batch = {"image": image, "position": torch.arange(6)}
    loss = both.training_step(batch, 0)
    loss["loss"].backward()
    found = {name: p.grad for name, p in both.named_parameters() if p.grad is not None}
    both.zero_grad()

    fake = both.model.generate(both.model.latents(Noise(0, batch["position"])))
    x = both.model.codec.encode(image).requires_grad_()
    y = fake.detach().requires_grad_()
    real_score, fake_score = both.discriminator(x), both.discriminator(y)
    first = relativistic(real_score, fake_score)
    first = first + gradient_penalty(real_score, x, 0.5) + gradient_penalty(fake_score, y, 0.5)
    second = relativistic(both.discriminator(fake), real_score.detach())
    for own, prefix in ((first, "discriminator."), (second, "model.")):
        weights = {k: p for k, p in both.named_parameters() if k.startswith(prefix)}
        expected = torch.autograd.grad(own.mean(), list(weights.values()), retain_graph=True)
        for name, gradient in zip(weights, expected, strict=True):
            torch.testing.assert_close(found[name], gradient)
    torch.testing.assert_close(loss["per_sample"], (first + second).detach())
    assert found.keys() == {k for k, _ in both.named_parameters() if not k.startswith("ema.")}


def test_under_classes_each_network_has_a_table_of_its_own():
    condition, sizes = ConditionShape(vector=4), {"channels": 4, "scales": 1}
    both = recipe(
        network=Generator((3, 16, 16), 4, condition=condition, **sizes),
        discriminator=Discriminator((3, 16, 16), condition=condition, **sizes),
        conditioning=ClassConditioner(5, 4),
        pairing="plain",
    ).module({})
    for weight in both.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    image = torch.randint(256, (6, 3, 16, 16), dtype=torch.uint8)
    batch = {"image": image, "position": torch.arange(6), "label": torch.tensor([0, 1, 3] * 2)}
    both.training_step(batch, 0)["loss"].backward()
    tables = both.model.conditioner.table.weight, both.judged.table.weight
    for table in tables:
        assert table.grad.abs().sum(1).bool().tolist() == [True, True, False, True, False, False]
    found, vector = tables[0].grad.clone(), both._vector(batch)
    fake = both._made(both.model, batch, Noise(0, batch["position"]))
    own = generator_loss("plain", both.discriminator(fake, vector), fake).mean()
    torch.testing.assert_close(found, torch.autograd.grad(own, tables[0])[0])


def test_max_steps_counts_steps_of_both_networks_as_one(tmp_path):
    keep = Keep()
    fit(recipe({"keep": keep}, max_steps=5), {}, tmp_path, None)
    assert keep.step == 5
    content = torch.load(checkpoints(tmp_path)[-1], weights_only=True)
    (optimizer,) = content["optimizer_states"]
    assert {int(each["step"]) for each in optimizer["state"].values()} == {5}
    assert len(optimizer["state"]) == len([*keep.module._trained])


def test_only_the_generator_is_averaged(tmp_path):
    keep = Keep()
    fit(recipe({"keep": keep}, max_steps=2), {}, tmp_path, None)
    state = keep.module.state_dict()
    averaged = {k.removeprefix("ema.model.") for k in state if k.startswith("ema.model.")}
    assert averaged == {k.removeprefix("model.") for k in state if k.startswith("model.")}
    assert averaged


@pytest.mark.parametrize("stop", [2, 3])
def test_a_resumed_run_equals_the_uninterrupted_one_to_the_bit(stop, tmp_path):
    saved = {"checkpoints": Checkpoints(every=1, keep=9)}
    fit(recipe(saved, max_steps=6, lr_decay="constant"), {}, tmp_path / "whole", None)
    part = tmp_path / "part"
    fit(recipe(saved, max_steps=stop, lr_decay="constant"), {}, part, None)
    last = checkpoints(part)[-1]
    fit(recipe(saved, max_steps=6, lr_decay="constant"), {}, part, last)
    ends = [torch.load(checkpoints(f)[-1], weights_only=True) for f in (tmp_path / "whole", part)]
    one, two = (end["state_dict"] for end in ends)
    assert one.keys() == two.keys()
    assert any(key.startswith("discriminator.") for key in one)
    assert all(torch.equal(one[key], two[key]) for key in one)
    moments = [end["optimizer_states"][0]["state"] for end in ends]
    for key in moments[0]:
        assert torch.equal(moments[0][key]["exp_avg_sq"], moments[1][key]["exp_avg_sq"])


def trained(folder, devices):
    keep = Keep()
    parts = {"strategy": "ddp", "devices": devices} if devices > 1 else {"devices": 1}
    sgd = partial(torch.optim.SGD, lr=0.1)  # Adam would blow up rounding where gradients vanish
    run = recipe(
        {"keep": keep},
        trainer=partial(Trainer, accelerator="cpu", **parts),
        max_steps=4,
        validate_every=2,
        validation_images=7,
        optimizer=sgd,
    )
    meet_anew()
    fit(run, {}, folder, None)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").open()]
    losses = [row["validation/loss"] for row in rows if "validation/loss" in row]
    return {k: v.clone() for k, v in keep.module.state_dict().items()}, losses


def by_two(folder):
    return trained(folder, 2)


@pytest.mark.slow
def test_two_processes_are_one(tmp_path):
    alone, losses = trained(tmp_path / "one", 1)
    for state, found in in_two_processes(by_two, tmp_path / "two"):
        for name, value in alone.items():
            torch.testing.assert_close(state[name], value, rtol=1e-4, atol=1e-5, msg=name)
        if found:  # rank 0 writes
            assert found == pytest.approx(losses, rel=1e-4)
