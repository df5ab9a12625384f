"""Training in the latent of an autoencoder: kept or encoded afresh, the run is the same."""

from functools import partial

import pytest
import torch
from lightning import Callback, Trainer
from tiny import experiment
from two_processes import in_two_processes, meet_anew

from unnoise.config.problems import ConfigError
from unnoise.data import latents as on_disk
from unnoise.data.pixels import to_signal
from unnoise.networks.autoencoders import KLAutoencoder
from unnoise.networks.conditioning import ConditionShape
from unnoise.networks.conditioning.image import LowResolution, PictureConditioner
from unnoise.networks.unet import UNet
from unnoise.runs.checkpoints import newest_whole
from unnoise.training.loop import fit

STEPS = 5


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("UNNOISE_DATA", str(tmp_path / "data"))


class Keep(Callback):
    """What is left at the end, and what a step was given."""

    def on_fit_end(self, trainer, module):
        self.model, self.codec = module.ema.model, module.model.codec
        found = module.state_dict()
        self.state = {key: value.clone() for key, value in found.items()}
        self.size = sum({value.data_ptr(): value.nbytes for value in found.values()}.values())
        self.images = trainer.datamodule.train_images

    def on_train_batch_start(self, trainer, module, batch, index):
        self.given = set(batch)


def train(folder, checkpoint=None, spatial=False, **changes):
    """A run in the latent of an autoencoder with fixed random weights."""
    torch.manual_seed(1)
    autoencoder = KLAutoencoder(3, latent=4, channels=8, multipliers=(1, 2), blocks=1)
    condition = ConditionShape(spatial=12 if spatial else 0)
    network = {"channels": 8, "multipliers": (1,), "blocks": 1, "attention_resolutions": ()}
    keep = Keep()
    fields = {
        "autoencoder": autoencoder,
        "network": UNet((4, 8, 8), 4, condition, **network),
        "conditioning": PictureConditioner(LowResolution(2, 3)) if spatial else None,
        "max_steps": STEPS,
        "lr_decay": "constant",
    }
    run = experiment({"keep": keep}, **fields | changes)
    fit(run, {}, folder, checkpoint)
    return keep


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize("flip", [False, True])
def test_kept_latents_are_those_that_a_step_would_encode(flip, tmp_path):
    kept = train(tmp_path / "kept", flip=flip)
    fresh = train(tmp_path / "fresh", flip=flip, latent_cache=0.0)
    assert ("moments" in kept.given, "image" in kept.given) == (True, False)
    assert "image" in fresh.given
    assert same(kept.state, fresh.state)


def test_each_channel_is_brought_to_mean_0_and_variance_1(tmp_path):
    """Of the latents as they are drawn, over all training pictures and their mirror images."""
    run = train(tmp_path / "run", flip=True)
    pictures = run.images.read(torch.arange(len(run.images)))
    found = run.codec.autoencoder.posterior(to_signal(torch.cat((pictures, pictures.flip(-1)))))
    mean = found.mean.double().mean((0, 2, 3))
    variance = (found.mean.double() ** 2 + found.logvar.double().exp()).mean((0, 2, 3)) - mean**2
    scale = 1 / variance.sqrt()
    assert run.codec.shift.flatten().tolist() == pytest.approx(mean.tolist(), abs=1e-6)
    assert run.codec.scale.flatten().tolist() == pytest.approx(scale.tolist(), rel=1e-6)


def test_a_resumed_run_is_the_one_that_was_not_stopped(tmp_path):
    whole = train(tmp_path / "whole")
    train(tmp_path / "part", max_steps=2)
    for folder in on_disk.home().iterdir():
        (folder / "latents.float32").unlink()  # what is kept may be deleted
    resumed = train(tmp_path / "part", newest_whole(tmp_path / "part"))
    assert same(whole.state, resumed.state)


def test_pictures_come_along_where_a_condition_reads_them(tmp_path):
    kept = train(tmp_path / "kept", spatial=True)
    assert {"moments", "image"} <= kept.given
    assert same(kept.state, train(tmp_path / "fresh", spatial=True, latent_cache=0.0).state)


def test_the_autoencoder_is_neither_averaged_nor_kept_twice(tmp_path):
    run = train(tmp_path / "run")
    assert run.model.codec is run.codec
    assert not any(parameter.requires_grad for parameter in run.codec.parameters())
    weights = sum(value.nbytes for value in run.codec.state_dict().values())
    assert sum(value.nbytes for value in run.state.values()) == run.size + weights
    content = torch.load(newest_whole(tmp_path / "run"), weights_only=True)["state_dict"]
    kept = {value.data_ptr(): value.nbytes for value in content.values()}
    assert sum(kept.values()) == run.size


def of_rank(folder):
    parts = {"strategy": "ddp", "devices": 2} if "rank" in folder.name else {"devices": 1}
    trainer = partial(Trainer, accelerator="cpu", **parts)
    found = []
    for most in (10.0, 0.0):
        sgd = partial(torch.optim.SGD, lr=0.1)  # Adam would blow up rounding
        changes = {"trainer": trainer, "latent_cache": most, "optimizer": sgd}
        found.append(train(folder / str(most), **changes).state)
        meet_anew()
    return found


@pytest.mark.slow
def test_two_processes_are_one(tmp_path):
    both = in_two_processes(of_rank, tmp_path / "ranks")
    alone = of_rank(tmp_path / "alone")
    for rank in both:
        for one, two in zip(rank, alone, strict=True):
            for key in ("model.codec.shift", "model.codec.scale"):
                assert torch.equal(one[key], two[key])
            for key, value in two.items():
                assert torch.allclose(one[key].double(), value.double(), atol=1e-5), key


def test_a_latent_that_does_not_vary_ends_the_run_before_its_first_step(tmp_path):
    autoencoder = KLAutoencoder(3, latent=4, channels=8, multipliers=(1, 2), blocks=1)
    torch.nn.init.constant_(autoencoder.quant.weight, torch.nan)
    with pytest.raises(ConfigError, match="autoencoder: channel 0 of the latent is the same"):
        train(tmp_path / "run", autoencoder=autoencoder)


def test_without_a_place_to_keep_latents_each_step_encodes(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setenv("UNNOISE_DATA", str(tmp_path / "file"))
    assert "image" in train(tmp_path / "run").given
    assert "each step encodes its own" in capsys.readouterr().err
