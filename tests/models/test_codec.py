import pytest
import torch
from torch import nn

from unnoise.diffusion.denoiser import Clip, Denoiser, X0Prediction
from unnoise.diffusion.noise import Noise
from unnoise.diffusion.samplers import DDIM, Sampler
from unnoise.diffusion.schedules import linear
from unnoise.models.codec import LatentCodec, PixelCodec
from unnoise.models.diffusion import DiffusionModel
from unnoise.networks.autoencoders import Autoencoder, Identity

DATA = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)


def test_pixels_come_back_as_they_were():
    codec = PixelCodec((1, 16, 16))
    signal = codec.encode(DATA)
    assert (signal.min(), signal.max()) == (-1, 1)
    assert torch.equal(codec.decode(signal), DATA)
    assert torch.equal(codec.decode(signal * 3)[DATA > 200], torch.full((55,), 255).byte())


class Folded(Autoencoder):
    """Squares of 2 × 2 pixels as channels, ten times as large."""

    def latent_shape(self, shape):
        C, H, W = shape
        return 4 * C, H // 2, W // 2

    def encode(self, x):
        return 10 * nn.functional.pixel_unshuffle(x, 2)

    def decode(self, z):
        return nn.functional.pixel_shuffle(z / 10, 2)


class Says(nn.Module):
    """A network that always says the same."""

    def __init__(self, signal):
        super().__init__()
        self.signal = nn.Parameter(signal)

    def forward(self, x, t, condition=None):
        return self.signal.expand(len(x), *self.signal.shape[1:])


def test_a_latent_is_diffused_and_comes_out_as_data():
    codec = LatentCodec(Folded(), (1, 16, 16))
    assert codec.shape == (4, 8, 8)
    assert codec.data_shape == (1, 16, 16)
    assert torch.equal(codec.decode(codec.encode(DATA)), DATA)
    model = DiffusionModel(Denoiser(Says(codec.encode(DATA)), X0Prediction()), linear(), codec)
    drawn = model.sample(Sampler(DDIM(), steps=3), Noise(0, torch.arange(2)))
    assert torch.equal(drawn, DATA.expand(2, -1, -1, -1))


def test_estimates_are_clipped_where_signals_have_bounds_only():
    noise, sampler = Noise(0, torch.arange(1)), Sampler(DDIM(), steps=3, threshold=Clip())
    for codec, most in ((PixelCodec((4, 8, 8)), 1.0), (LatentCodec(Folded(), (1, 16, 16)), 7.0)):
        network = Says(torch.full((1, 4, 8, 8), 7.0))
        model = DiffusionModel(Denoiser(network, X0Prediction()), linear(), codec)
        assert model.sample_signal(sampler, noise).max() == pytest.approx(most)


def test_the_identity_is_a_codec_without_effect():
    latent, pixels = LatentCodec(Identity(), (1, 16, 16)), PixelCodec((1, 16, 16))
    assert torch.equal(latent.encode(DATA), pixels.encode(DATA))
    assert (latent.shape, latent.bounded) == (pixels.shape, pixels.bounded)
    assert not list(latent.parameters())
