"""The training step: which loss is minimised, and what is dropped."""

import pytest
import torch
from lightning import Callback
from tiny import experiment

from unnoise.diffusion.denoiser import Clip
from unnoise.diffusion.noise import Noise
from unnoise.diffusion.objectives import HybridLoss
from unnoise.diffusion.samplers import DDIM, Sampler
from unnoise.diffusion.times import LossSecondMomentTimes, TimeSampler
from unnoise.models.diffusion import DiffusionModel
from unnoise.networks.autoencoders import Identity
from unnoise.networks.conditioning import ConditionShape
from unnoise.networks.unet import UNet
from unnoise.training.data_module import ImageDataModule
from unnoise.training.loop import fit


class Keep(Callback):
    def on_fit_end(self, trainer, module):
        self.model = module.ema.model


class Doubled(TimeSampler):
    """Uniform times whose weights are not 1."""

    def draw(self, noise):
        u = noise.uniform("time")
        return u, 2 * u


def losses_of(times, tmp_path, monkeypatch):
    """Each step's outputs, and the loss that was minimised."""
    from unnoise.training.diffusion import DiffusionModule

    seen, step = [], DiffusionModule.training_step

    def spy(self, batch, batch_idx):
        seen.append(step(self, batch, batch_idx))
        return seen[-1]

    monkeypatch.setattr(DiffusionModule, "training_step", spy)
    fit(experiment(times=times, max_steps=3), {}, tmp_path, None)
    return seen


def test_the_weights_of_the_times_weigh_the_loss(tmp_path, monkeypatch):
    for outputs in losses_of(Doubled(), tmp_path, monkeypatch):
        expected = (2 * outputs["u"] * outputs["per_sample"]).mean()
        torch.testing.assert_close(outputs["loss"].detach(), expected)


def test_times_that_learn_see_every_loss_of_every_step(tmp_path, monkeypatch):
    times = LossSecondMomentTimes(bins=2, history=100)
    seen = losses_of(times, tmp_path, monkeypatch)
    kept = times.losses[times.losses != 0].sort().values
    told = torch.cat([outputs["per_sample"] for outputs in seen]).sort().values
    torch.testing.assert_close(kept.float(), told)


def test_conditions_are_dropped_with_the_asked_probability():
    kept = []
    made = experiment(conditional=True)
    model = DiffusionModel.of(vars(made), made.data.shape)
    data = ImageDataModule(made)
    image = data.train_images.read(torch.arange(40))
    look_up = model.conditioner.forward

    def spy(batch, keep):
        kept.append(keep)
        return look_up(batch, keep)

    def nothing(denoiser, schedule, x0, u, condition, noise):
        return torch.zeros(len(x0))

    model.conditioner.forward = spy
    from unnoise.diffusion.times import UniformTimes

    shares = {}
    for drop in (0.0, 0.2, 1.0):
        kept.clear()
        for start in range(0, 4000, 40):
            ids = torch.arange(start, start + 40)
            batch = {"image": image, "label": data.train_images.labels, "position": ids}
            with torch.no_grad():
                model.loss(nothing, batch, Noise(0, ids), UniformTimes(), drop)
        shares[drop] = 1 - torch.cat(kept).float().mean().item()
    assert shares[0.0] == 0
    assert shares[1.0] == 1
    assert abs(shares[0.2] - 0.2) < 4 * (0.2 * 0.8 / 4000) ** 0.5


@pytest.mark.parametrize("learned", [False, True])
def test_a_latent_that_is_the_picture_trains_and_draws_as_the_pixels_do(tmp_path, learned):
    sampler, weights, drawn = Sampler(DDIM(), steps=3, threshold=Clip()), [], []
    for autoencoder in (None, Identity()):
        changes = {"autoencoder": autoencoder, "conditional": True, "max_steps": 3}
        if learned:
            torch.manual_seed(0)
            network = UNet(
                (3, 16, 16), 6, ConditionShape(4), channels=8, multipliers=(1,), blocks=1,
                attention_resolutions=(),
            )  # fmt: skip
            changes |= {"network": network, "learned_variance": True, "objective": HybridLoss()}
        keep = Keep()
        fit(experiment({"keep": keep}, **changes), {}, tmp_path / str(autoencoder is None), None)
        weights.append(keep.model.state_dict())
        drawn.append(keep.model.sample(sampler, Noise(0, torch.arange(5))))
    assert torch.equal(*drawn)
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
