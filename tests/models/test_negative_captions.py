"""Negative captions are the weaker branch of guidance, in place of the null condition."""

import pytest
import torch
from torch import nn

from unnoise.data.source import Images
from unnoise.diffusion import schedules
from unnoise.diffusion.denoiser import Denoiser, EpsilonPrediction
from unnoise.diffusion.guidance import Guidance
from unnoise.diffusion.noise import Noise
from unnoise.diffusion.samplers import DDIM, Sampler
from unnoise.models.codec import PixelCodec
from unnoise.models.diffusion import DiffusionModel
from unnoise.models.drawn import draw
from unnoise.models.prompts import Prompts
from unnoise.networks.conditioning import (
    ClassConditioner,
    Condition,
    Conditioner,
    JointConditioner,
    TextConditioner,
    TextEncoder,
)
from unnoise.networks.unet import UNet

SHAPE = (3, 8, 8)
CAPTIONS = ["a red knight", "a cat", "two slimes"]
NEGATIVE = ["night", "a blurry picture of something", "cat"]
X = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0))
LEVEL = schedules.linear().level(torch.tensor(400))


class Letters(TextEncoder):
    """Each letter a token."""

    def __init__(self):
        super().__init__(3)

    def embed(self, text):
        codes = torch.tensor([float(ord(letter)) for letter in text])
        return torch.stack([codes.cos(), codes.sin(), (3 * codes).cos()], dim=1)


class Bare(Conditioner):
    """Reads captions, but knows of no negative ones."""

    reads = ("caption",)

    def forward(self, batch, keep):
        return Condition()


def model(conditioner=None):
    torch.manual_seed(0)
    conditioner = TextConditioner(Letters(), 8) if conditioner is None else conditioner
    network = UNet(SHAPE, 3, conditioner.shape, channels=16, multipliers=(1, 2), blocks=1,
                   attention_resolutions=(4,), heads=2, transformer_depth=1)  # fmt: skip
    made = DiffusionModel(
        Denoiser(network, EpsilonPrediction()),
        schedules.linear(),
        PixelCodec(SHAPE),
        conditioner,
    )
    for p in made.parameters():
        if p.ndim > 1:
            nn.init.normal_(p, std=p[0].numel() ** -0.5)
        else:
            p.data += 0.1 * torch.randn_like(p)
    return made.requires_grad_(False).eval()


def drawn(of, scale, **given):
    prompts = Prompts(of, lambda: pytest.fail("reads data"), given={"caption": CAPTIONS, **given})
    sampler = Sampler(DDIM(), 4, guidance=Guidance(scale))
    return draw(of, sampler, prompts, 1, range(5), batch_size=2).pixels


def test_none_and_the_empty_text_give_the_same_picture_bit_for_bit():
    of = model()
    plain = drawn(of, 3.0)
    assert torch.equal(drawn(of, 3.0, negative=[""]), plain)
    assert torch.equal(drawn(of, 3.0, negative=["", ""]), plain)
    assert not torch.equal(drawn(of, 3.0, negative=["cat"]), plain)
    signals = [
        of.sample_signal(Sampler(DDIM(), 4, guidance=Guidance(3.0)), Noise(0, torch.arange(3)),
                         {"caption": CAPTIONS, **more})
        for more in ({}, {"negative": [""] * 3})
    ]  # fmt: skip
    assert torch.equal(*signals)


def test_they_are_used_in_turn():
    of = model()
    together = drawn(of, 3.0, negative=["cat", ""])
    assert torch.equal(together[1::2], drawn(of, 3.0)[1::2])
    assert torch.equal(together[::2], drawn(of, 3.0, negative=["cat"])[::2])


@pytest.mark.parametrize("scale", [0.0, 0.5, 3.0, 7.5])
def test_guidance_is_the_sum_of_two_calls(scale):
    """s·c + (1 − s)·n, each branch by a call of the denoiser of its own."""
    of, kept = model(), torch.ones(3, dtype=torch.bool)
    batch = {"caption": CAPTIONS, "negative": NEGATIVE}
    found = of.guided(batch, 3, Guidance(scale))(X, LEVEL)
    c, n = (
        of.denoiser(X, LEVEL, of.conditioner({"caption": texts}, kept))
        for texts in (CAPTIONS, NEGATIVE)
    )
    assert (c.eps - n.eps).abs().mean() > 0.01
    torch.testing.assert_close(found.eps, scale * c.eps + (1 - scale) * n.eps, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(found.x0, scale * c.x0 + (1 - scale) * n.x0, atol=1e-3, rtol=1e-5)


def test_other_parts_of_the_condition_are_left_out_as_ever():
    """Away from "cat" without a class, not from "cat" with the class."""
    of = model(JointConditioner({"class": ClassConditioner(4, 5),
                                 "text": TextConditioner(Letters(), 8)}))  # fmt: skip
    batch = {"caption": CAPTIONS, "label": torch.tensor([1, 2, 3]), "negative": NEGATIVE}
    found = of.guided(batch, 3, Guidance(3.0))(X, LEVEL).eps
    kept = torch.ones(3, dtype=torch.bool)
    none = of.conditioner.parts["class"](batch, ~kept)
    words = of.conditioner.parts["text"]({"caption": NEGATIVE}, kept)
    weaker = words._replace(vector=torch.cat([none.vector, words.vector], dim=1))
    c = of.denoiser(X, LEVEL, of.conditioner(batch, kept)).eps
    n = of.denoiser(X, LEVEL, weaker).eps
    torch.testing.assert_close(found, 3 * c - 2 * n, atol=1e-4, rtol=1e-5)


def test_a_batch_size_does_not_matter():
    of, sampler = model(), Sampler(DDIM(), 4, guidance=Guidance(3.0))
    prompts = Prompts(of, Images, given={"caption": CAPTIONS, "negative": NEGATIVE})
    one, all_ = (draw(of, sampler, prompts, 1, range(6), size).pixels.int() for size in (1, 6))
    assert (one - all_).abs().max() <= 1


@pytest.mark.parametrize(
    ("conditioner", "given", "message"),
    [
        (ClassConditioner(4, 5), ["x"], "negative captions .* reads labels: .*TextConditioner"),
        (Bare(), ["x"], "negative captions .* reads captions: they take a TextConditioner"),
        (TextConditioner(Letters(), 8), [], "negative captions are given, but the list is empty"),
        (TextConditioner(Letters(), 8), ["x", " "], "negative caption 1 is empty"),
    ],
)
def test_what_no_text_conditioner_reads_is_refused(conditioner, given, message):
    with pytest.raises(ValueError, match=message):
        Prompts(model(conditioner), Images, given={"negative": given})


def test_an_unconditional_model_refuses():
    of = model()
    of.conditioner = None
    with pytest.raises(ValueError, match=r"negative captions are given, .* is unconditional"):
        Prompts(of, Images, given={"negative": ["x"]})


def test_negative_captions_that_would_do_nothing_are_refused():
    of, batch = model(), {"caption": CAPTIONS, "negative": NEGATIVE}
    with pytest.raises(ValueError, match="act through guidance, which is 1 here, and off"):
        of.guided(batch, 3, Guidance(1.0))
    with pytest.raises(ValueError, match="by the model's own captions, not for a weak model"):
        of.guided(batch, 3, Guidance(3.0), weak=model())
    with pytest.raises(ValueError, match="1 of 'negative' are given for 3"):
        of.guided({"caption": CAPTIONS, "negative": ["x"]}, 3, Guidance(3.0))
