"""How autoencoders are trained, and that their runs are as trustworthy as any other."""

import json
from functools import partial

import pytest
import torch
from lightning import Callback, Trainer
from tiny import experiment
from torch import nn
from two_processes import in_two_processes, meet_anew

from unnoise.evaluation.perceptual import PerceptualDistance, own_extractor
from unnoise.models.autoencoder import adaptive_weight, hinge
from unnoise.networks.adversarial import PatchDiscriminator
from unnoise.networks.autoencoders import (
    FSQ,
    Codebook,
    KLAutoencoder,
    Reconstruction,
    Transform,
    VQAutoencoder,
)
from unnoise.runs.checkpoints import checkpoints
from unnoise.training.callbacks.checkpoints import Checkpoints
from unnoise.training.loop import fit
from unnoise.training.recipe import AutoencoderRecipe

OTHERS = (
    *("schedule", "prediction", "objective", "times", "learned_variance", "autoencoder"),
    *("conditioning", "condition_dropout", "sampler", "network", "latent_cache", "first_stage"),
    "initial",
)


def network(kind):
    torch.manual_seed(0)
    if kind == "kl":
        return KLAutoencoder(3, 2, 4, (1, 2), 1)
    quantizer = Codebook(12, 2, decay=0.8) if kind == "vq" else FSQ((4, 3))
    return VQAutoencoder(3, quantizer, 4, (1, 2), 1)


def recipe(kind="kl", callbacks=None, **changes):
    shared = {k: v for k, v in vars(experiment(callbacks)).items() if k not in OTHERS}
    torch.manual_seed(0)
    own = {
        "network": network(kind),
        "discriminator": PatchDiscriminator((3, 16, 16), channels=4, layers=1),
        "discriminator_start": 2,
        "discriminator_weight": 0.5,
        "perceptual": 1.0,
        "extractor": "auto",
        "sampler": Reconstruction(),
        "conditioning": None,
        "condition_dropout": 0,
        "gradient_clip": None,
    }
    return AutoencoderRecipe(**(shared | own | changes))


class Keep(Callback):
    def on_train_batch_end(self, trainer, module, *_):
        self.step, self.module = trainer.global_step, module


def trained(folder, kind="kl", devices=1, **changes):
    """A run's last state and what it logged."""
    keep = Keep()
    parts = {"strategy": "ddp", "devices": devices} if devices > 1 else {"devices": 1}
    trainer = partial(Trainer, accelerator="cpu", **parts)
    shared = {"max_steps": 4, "validate_every": 2, "validation_images": 7}
    meet_anew()
    fit(recipe(kind, {"keep": keep}, trainer=trainer, **(shared | changes)), {}, folder, None)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").open()]
    return {k: v.clone() for k, v in keep.module.state_dict().items()}, rows


def merged(rows):
    """What was logged by step, without what depends on the clock."""
    found = {}
    for row in rows:
        kept = {k: v for k, v in row.items() if k != "time" and "second" not in k}
        found.setdefault(row["step"], {}).update(kept)
    return found


def test_the_adaptive_weight_makes_gradients_equally_strong():
    """Of linear losses a·w and b·w; λ = |a| / (|b| + 1e-4), at most 1e4."""
    a, b = torch.tensor([3.0, 4.0]), torch.tensor([0.0, 0.5])
    w = torch.zeros(2, requires_grad=True)
    gradients = [torch.autograd.grad((each * w).sum(), w)[0] for each in (a, b)]
    assert float(adaptive_weight(*gradients)) == pytest.approx(5 / 0.5001)
    assert float(adaptive_weight(a, torch.zeros(2))) == 1e4
    assert float(adaptive_weight(torch.zeros(2), b)) == 0


def test_the_hinge_loss_is_0_beyond_the_margin_and_1_without_knowledge():
    beyond = torch.full((3, 2, 2), 1.5)
    assert not hinge(beyond, -beyond).any()
    assert torch.equal(hinge(0 * beyond, 0 * beyond), torch.ones(3))


def test_each_network_has_the_gradient_of_its_own_loss(tmp_path):
    """The autoencoder that of its likelihood, its penalty and what D tells it; D the hinge loss."""
    both = recipe(discriminator_start=0, network=network("vq")).module({})
    both.trainer = Trainer(accelerator="cpu", logger=False, default_root_dir=tmp_path)
    for weight in both.parameters():
        if weight.requires_grad:
            nn.init.normal_(weight, std=0.2)
    batch = {"image": torch.randint(256, (6, 3, 16, 16), dtype=torch.uint8)}
    batch["position"] = torch.arange(6)
    both.training_step(batch, 0)["loss"].backward()
    found = {name: p.grad for name, p in both.named_parameters() if p.grad is not None}
    both.zero_grad()

    x, autoencoder = both.model.codec.encode(batch["image"]), both.model.autoencoder
    y, latent = autoencoder(x)
    error = (x - y).abs().flatten(1).mean(1) + both.distance(x, y)
    s = both.scale.log
    nll = 768 * (error / s.exp() + s)
    told = -both.discriminator(y).flatten(1).mean(1)
    last = autoencoder.decoder.conv_out.weight
    weight = adaptive_weight(*(
        torch.autograd.grad(each.mean(), last, retain_graph=True)[0] for each in (nll, told)
    ))  # fmt: skip
    first = nll + latent.penalty + 0.5 * weight * told
    second = hinge(both.discriminator(x), both.discriminator(y.detach()))
    for own, prefixes in ((first, ("model.", "scale.")), (second, ("discriminator.",))):
        weights = {k: p for k, p in both.named_parameters() if k.startswith(prefixes)}
        expected = torch.autograd.grad(own.mean(), list(weights.values()), retain_graph=True)
        for name, gradient in zip(weights, expected, strict=True):
            torch.testing.assert_close(found.pop(name), gradient, msg=name)
    assert not found
    assert float(weight) > 0


def test_one_step_is_one_step_and_the_discriminator_begins_when_it_should(tmp_path):
    start = dict(recipe().discriminator.named_parameters())
    for steps, moved in ((2, False), (3, True)):
        state, _ = trained(tmp_path / str(steps), max_steps=steps)
        now = [torch.equal(state[f"discriminator.{k}"], p) for k, p in start.items()]
        assert sum(now) <= 1 if moved else all(now)  # on its last bias the two parts may cancel
        content = torch.load(checkpoints(tmp_path / str(steps))[-1], weights_only=True)
        assert content["global_step"] == steps
        (optimizer,) = content["optimizer_states"]
        counts = {int(each["step"]) for each in optimizer["state"].values()}
        assert counts == ({1, 3} if moved else {2})


def test_the_scale_of_the_likelihood_is_learned_and_codes_are_counted(tmp_path):
    state, rows = trained(tmp_path / "vq", "vq", max_steps=6, validate_every=3)
    assert state["scale.log"] != 0
    assert torch.equal(state["ema.model.autoencoder.quantizer.vectors"],
                       state["model.autoencoder.quantizer.vectors"])  # fmt: skip
    for step in (3, 6):
        found = merged(rows)[step]
        used = found["validation/code_usage"] * 12
        assert used == pytest.approx(round(used))
        assert 1 <= found["validation/perplexity"] <= used + 1e-3
        parts = found["validation/absolute"] + found["validation/perceptual"]
        assert found["validation/loss"] == pytest.approx(parts)
    assert merged(rows)[6]["train/adversarial_weight"] > 0
    _, rows = trained(tmp_path / "kl", perceptual=0.0, max_steps=2)
    assert merged(rows)[2]["validation/kl_bits"] > 0
    assert "validation/perceptual" not in merged(rows)[2]


@pytest.mark.parametrize(
    ("kind", "stop"),
    [
        *(("kl", 2), ("vq", 3)),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (("kl", 1), ("kl", 3), ("vq", 2))
        ),
        pytest.param("fsq", 2, marks=pytest.mark.slow),
    ],
)
def test_a_resumed_run_equals_the_uninterrupted_one_to_the_bit(kind, stop, tmp_path):
    """Before the discriminator begins, when it does, and after."""
    saved = {"checkpoints": Checkpoints(every=1, keep=9)}
    for folder, steps, start in (("whole", 5, None), ("part", stop, None), ("part", 5, "part")):
        run = recipe(kind, saved, max_steps=steps, lr_decay="constant")
        fit(run, {}, tmp_path / folder, start and checkpoints(tmp_path / start)[-1])
    ends = [torch.load(checkpoints(tmp_path / f)[-1], weights_only=True) for f in ("whole", "part")]
    one, two = (end["state_dict"] for end in ends)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)
    first, second = (end["optimizer_states"][0]["state"] for end in ends)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[k]["exp_avg_sq"], second[k]["exp_avg_sq"]) for k in first)


def test_without_a_change_equivariance_changes_nothing_to_the_bit(tmp_path, monkeypatch):
    plain = {"discriminator": None, "max_steps": 3}
    without, _ = trained(tmp_path / "without", **plain)
    with_it, _ = trained(tmp_path / "with", **plain, equivariance=1.0)
    assert not all(torch.equal(without[key], with_it[key]) for key in without)
    monkeypatch.setattr(Transform, "drawn", classmethod(lambda cls, noise, share: cls()))
    identity, _ = trained(tmp_path / "identity", **plain, equivariance=1.0)
    assert all(torch.equal(without[key], identity[key]) for key in without)


@pytest.mark.parametrize("kind", ["kl", pytest.param("vq", marks=pytest.mark.slow)])
def test_a_run_with_equivariance_is_resumed_to_the_bit(kind, tmp_path):
    shared = {"discriminator": None, "lr_decay": "constant", "equivariance": 0.7}
    saved = {"checkpoints": Checkpoints(every=1, keep=9)}
    for folder, steps, start in (("whole", 5, None), ("part", 2, None), ("part", 5, "part")):
        run = recipe(kind, saved, max_steps=steps, **shared)
        fit(run, {}, tmp_path / folder, start and checkpoints(tmp_path / start)[-1])
    ends = [torch.load(checkpoints(tmp_path / f)[-1], weights_only=True) for f in ("whole", "part")]
    one, two = (end["state_dict"] for end in ends)
    assert all(torch.equal(one[key], two[key]) for key in one)


def both_kinds(folder, devices):
    sgd = partial(torch.optim.SGD, lr=1e-4)  # Adam would blow up rounding where gradients vanish
    return {
        kind: trained(folder / kind, kind, devices, optimizer=sgd, **changes)
        for kind, changes in (
            ("kl", {}),
            ("vq", {"accumulate": 2, "discriminator": None}),
        )
    }


def by_two(folder):
    return both_kinds(folder, 2)


@pytest.mark.slow
def test_two_processes_are_one(tmp_path):
    alone = both_kinds(tmp_path / "one", 1)
    ranks = in_two_processes(by_two, tmp_path / "two")
    for kind, (state, rows) in alone.items():
        first, second = (rank[kind][0] for rank in ranks)
        for name, value in state.items():
            assert torch.equal(first[name], second[name]), name
            torch.testing.assert_close(first[name], value, rtol=1e-4, atol=1e-5, msg=name)
        logged = merged(ranks[0][kind][1])
        for step, values in merged(rows).items():
            assert logged[step] == pytest.approx(values, rel=1e-3, abs=1e-5)


def test_micro_batches_are_one_batch(tmp_path):
    sgd = partial(torch.optim.SGD, lr=1e-4)
    whole, parts = (
        trained(tmp_path / str(k), "vq", accumulate=k, discriminator=None, optimizer=sgd)[0]
        for k in (1, 4)
    )
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-4, atol=1e-5, msg=name)
    start = network("vq").quantizer.vectors
    assert not torch.equal(whole["model.autoencoder.quantizer.vectors"], start)


def test_the_perceptual_distance_sees_what_the_extractor_does():
    source = recipe().data
    distance = PerceptualDistance(own_extractor("auto", source)).train()
    image = source.images("train").read(torch.arange(8))
    x = image.float() / 127.5 - 1
    assert torch.equal(distance(x, x), torch.zeros(8))
    blurred = nn.functional.avg_pool2d(x, 3, 1, 1)
    apart, less = distance(x, blurred), distance(x, 0.9 * x + 0.1 * blurred)
    assert (less < apart).all()
    assert ((apart > 0) & (apart < 2)).all()
    torch.testing.assert_close(distance(x[2:3], blurred[2:3]), apart[2:3])
    torch.testing.assert_close(distance.extractor.seen_of(x), distance.extractor.seen(image))
    y = blurred.clone().requires_grad_()
    assert torch.autograd.grad(distance(x, y).sum(), y)[0].abs().sum() > 0
    with pytest.raises(ValueError, match="there is no extractor nothing"):
        own_extractor("nothing", source)
