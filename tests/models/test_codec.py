import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from unnoise.data.decoding import Decoder
from unnoise.data.pixels import to_pixels, to_signal
from unnoise.diffusion.denoiser import Clip, Denoiser, X0Prediction
from unnoise.diffusion.guidance import Guidance
from unnoise.diffusion.noise import Noise
from unnoise.diffusion.objectives import WeightedLoss
from unnoise.diffusion.samplers import DDIM, Sampler
from unnoise.diffusion.schedules import linear
from unnoise.diffusion.times import UniformTimes
from unnoise.diffusion.weights import X0Weight
from unnoise.models.codec import LatentCodec, PixelCodec
from unnoise.models.diffusion import DiffusionModel
from unnoise.models.edits import EditKeys
from unnoise.models.gan import GAN
from unnoise.networks.adversarial import Generator
from unnoise.networks.autoencoders import (
    FSQ,
    Autoencoder,
    Codebook,
    Identity,
    KLAutoencoder,
    VQAutoencoder,
)
from unnoise.networks.conditioning.image import Edges, PictureConditioner

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

    def moments(self, x):
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


class Times4(Autoencoder):
    """A latent of the picture's size, four times as large."""

    def latent_shape(self, shape):
        return tuple(shape)

    def moments(self, x):
        return 4 * x

    def decode(self, z):
        return z / 4


def latent(autoencoder=None):
    codec = LatentCodec(autoencoder or Times4(), (1, 16, 16))
    return DiffusionModel(Denoiser(Says(codec.encode(DATA)), X0Prediction()), linear(), codec)


def pixels():
    codec = PixelCodec((1, 16, 16))
    return DiffusionModel(Denoiser(Says(codec.encode(DATA)), X0Prediction()), linear(), codec)


class Learns(Times4):
    def __init__(self):
        super().__init__()
        self.conv, self.drop = nn.Conv2d(1, 1, 1), nn.Dropout(0.5)

    def moments(self, x):
        return self.drop(self.conv(x))


def test_the_autoencoder_is_frozen_and_in_evaluation_mode():
    model = latent(Learns()).train()
    x = model.codec.encode(DATA)
    assert not x.requires_grad
    assert torch.equal(x, model.codec.encode(DATA))
    assert model.denoiser.training
    assert not any(p.requires_grad for p in model.codec.parameters())


class Drawn(Times4):
    """A latent that is drawn."""

    def drawn(self, moments, noise=None):
        if noise is None:
            return moments
        return moments + noise.normal("posterior", moments.shape[1:])


def test_a_drawn_latent_is_a_function_of_the_picture_s_id():
    codec, noise = latent(Drawn()).codec, Noise(3, torch.arange(5))
    x = codec.encode(DATA.expand(5, -1, -1, -1), noise)
    assert x.std(0).mean() > 0.5
    assert torch.equal(x[2:3], codec.encode(DATA, Noise(3, torch.tensor([2]))))
    assert torch.equal(codec.encode(DATA), 4 * PixelCodec((1, 16, 16)).encode(DATA))


def test_training_draws_the_latent_and_measures_against_it():
    """A network that says what was encoded has no loss only if it was encoded with the noise."""
    noise, batch = Noise(3, torch.tensor([2])), {"image": DATA}
    codec = LatentCodec(Drawn(), (1, 16, 16))
    for says, exact in ((codec.encode(DATA, noise), True), (codec.encode(DATA), False)):
        model = DiffusionModel(Denoiser(Says(says), X0Prediction()), linear(), codec)
        loss = model.loss(WeightedLoss(X0Weight()), batch, noise, UniformTimes())
        assert (loss.per_sample.item() < 1e-9) == exact


def test_what_is_for_pixels_is_refused_in_a_latent():
    batch, noise = {"image": DATA, "label": torch.tensor([0])}, Noise(0, torch.arange(1))
    with pytest.raises(ValueError, match="a likelihood of pictures takes a model of pixels"):
        latent().variational_bound(batch, noise, 4)
    assert pixels().variational_bound(batch, noise, 4).total.isfinite().all()
    assert latent(Identity()).variational_bound(batch, noise, 4).total.isfinite().all()
    with pytest.raises(ValueError, match="a classifier of pictures takes a model of pixels"):
        latent().sample(Sampler(DDIM(), steps=2), noise, batch, classifier=object())
    with pytest.raises(ValueError, match="works on another signal"):
        latent().sample(Sampler(DDIM(), steps=2), noise, weak=pixels())
    gan = GAN(Generator((1, 16, 16), latent=2, channels=4))
    with pytest.raises(ValueError, match="takes a diffusion model, not a GAN"):
        latent().sample(Sampler(DDIM(), steps=2), noise, weak=gan)


def test_edits_hold_the_signal_of_the_codec(tmp_path):
    Image.fromarray(DATA[0, 0].numpy()).save(tmp_path / "picture.png")
    mask = np.zeros((16, 16), dtype=np.uint8)
    mask[:8] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    files = str(tmp_path / "picture.png"), str(tmp_path / "mask.png")
    keys = EditKeys(edit="inpaint", image=files[0], mask=files[1], strength=None, resample=1)
    model, noise = latent(), Noise(0, torch.arange(1))
    edit, given = keys.make_edit(1, model.codec, Decoder((1, 16, 16)))
    assert torch.equal(given["original"], DATA)
    drawn = model.sample(Sampler(DDIM(), steps=3), noise, edit=edit)
    assert torch.equal(drawn[:, :, 8:], DATA[:, :, 8:])


def gaussian(seed=0):
    """A KL autoencoder of 1×16×16 pictures with random weights, and random pictures."""
    torch.manual_seed(seed)
    network = KLAutoencoder(1, latent=3, channels=4, multipliers=(1, 2), blocks=1)
    pictures = torch.randint(256, (21, 1, 16, 16), dtype=torch.uint8)
    return network, pictures


def test_a_latent_without_its_scale_is_of_no_use():
    codec = LatentCodec(gaussian()[0], (1, 16, 16))
    assert not codec.has_scale
    with pytest.raises(ValueError, match="the scale of its latents was not measured"):
        codec.check()
    codec.set_scale(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.5, 1.0, 2.0]))
    codec.check()
    with pytest.raises(ValueError, match="it was set before"):
        codec.set_scale(torch.zeros(3), torch.ones(3))
    with pytest.raises(ValueError, match="these latents are not scaled"):
        LatentCodec(Identity(), (1, 16, 16)).set_scale(torch.zeros(1), torch.ones(1))
    with pytest.raises(ValueError, match="channel 1 of the latent is the same in all pictures"):
        LatentCodec(gaussian()[0], (1, 16, 16)).set_scale(torch.zeros(3), torch.tensor([1, 0, 1.0]))


def test_the_scale_is_taken_off_again_before_decoding():
    network, pictures = gaussian()
    codec = LatentCodec(network, (1, 16, 16))
    codec.set_scale(torch.tensor([1.0, -2.0, 3.0]), torch.tensor([0.5, 1.0, 2.0]))
    z = network.posterior(to_signal(pictures)).mean
    expected = (z - torch.tensor([1.0, -2, 3])[:, None, None]) / torch.tensor([0.5, 1, 2])[
        :, None, None
    ]
    assert torch.allclose(codec.encode(pictures), expected, atol=1e-5)
    decoded = to_pixels(network.decode(z))
    assert (codec.decode(expected).int() - decoded.int()).abs().max() <= 1


def test_a_picture_s_latent_is_the_same_in_any_batch():
    network, pictures = gaussian()
    codec = LatentCodec(network, (1, 16, 16))
    whole = codec.moments(pictures)
    for rows in ([3], [20, 3, 7], range(2, 15)):
        assert torch.equal(codec.moments(pictures[list(rows)]), whole[list(rows)])


@pytest.mark.parametrize("quantizer", [Codebook(16, 3), FSQ((5, 5, 5))])
def test_codes_are_the_signal_as_they_are(quantizer):
    torch.manual_seed(0)
    network = VQAutoencoder(1, quantizer, channels=4, multipliers=(1, 2), blocks=1).eval()
    codec = LatentCodec(network, (1, 16, 16))
    signal = codec.encode(gaussian()[1])
    codes = network.latent(to_signal(gaussian()[1])).codes
    assert torch.equal(signal, quantizer.vectors_of(codes))
    assert codec.has_scale
    assert "scale" not in codec.state_dict()


def test_half_precision_does_not_reach_the_autoencoder():
    network, pictures = gaussian()
    codec = LatentCodec(network, (1, 16, 16))
    with torch.autocast("cpu", torch.bfloat16):
        half = codec.moments(pictures)
    assert torch.equal(half, codec.moments(pictures))


def test_a_spatial_condition_goes_to_the_places_of_a_latent():
    """A network that says what conditions it gets each block of pixels as channels."""

    class Echo(Says):
        def forward(self, x, t, condition):
            return condition.spatial

    codec = LatentCodec(Folded(), (1, 16, 16))
    model = DiffusionModel(
        *(Denoiser(Echo(DATA.float()), X0Prediction()), linear(), codec),
        PictureConditioner(Edges(0.0)),
    )
    drawn = model.sample_signal(
        Sampler(DDIM(), steps=1), Noise(0, torch.arange(1)), {"image": DATA}
    )
    assert torch.equal(drawn, nn.functional.pixel_unshuffle(Edges(0.0)(DATA), 2))


def test_inpainting_in_a_latent_keeps_the_picture_outside_the_mask(tmp_path):
    """All that the decoder says outside the mask is replaced, all places that it touches drawn."""
    picture = torch.randint(256, (16, 16), dtype=torch.uint8)
    Image.fromarray(picture.numpy()).save(tmp_path / "picture.png")
    marked = torch.zeros(16, 16, dtype=torch.bool)
    marked[3:8, 5:6] = True
    Image.fromarray(marked.byte().mul(255).numpy()).save(tmp_path / "mask.png")
    files = str(tmp_path / "picture.png"), str(tmp_path / "mask.png")
    keys = EditKeys(edit="inpaint", image=files[0], mask=files[1], strength=None, resample=1)
    codec = LatentCodec(Folded(), (1, 16, 16))
    edit, given = keys.make_edit(1, codec, Decoder((1, 16, 16)))
    assert edit.mask[0, 0].nonzero().tolist() == [[1, 2], [2, 2], [3, 2]]
    assert torch.equal(given["original"][0, 0], picture)
    assert (given["masked"][0, 0][marked] == 128).all()
    network = Says(torch.zeros(1, 4, 8, 8))
    model = DiffusionModel(Denoiser(network, X0Prediction()), linear(), codec)
    drawn = model.sample(Sampler(DDIM(), steps=3), Noise(0, torch.arange(2)), edit=edit)
    assert (drawn[:, 0][:, marked] == 128).all()
    assert (drawn[:, 0][:, ~marked] == picture[~marked]).all()


def test_a_weak_model_works_in_the_same_latent():
    def model(seed):
        codec = LatentCodec(gaussian(seed)[0], (1, 16, 16))
        codec.set_scale(torch.zeros(3), torch.ones(3))
        return DiffusionModel(
            Denoiser(Says(torch.ones(1, 3, 8, 8)), X0Prediction()), linear(), codec
        )

    sampler = Sampler(DDIM(), steps=2, guidance=Guidance(2.0))
    noise = Noise(0, torch.arange(1))
    model(0).sample(sampler, noise, weak=model(0))
    with pytest.raises(ValueError, match="works on another signal"):
        model(0).sample(sampler, noise, weak=model(1))
