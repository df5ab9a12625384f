"""Figures of trained models: who stands where, at which cost, from which noise."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from unnoise.data.pixels import to_pixels
from unnoise.data.sprites import Sprites
from unnoise.diffusion.denoiser import Denoiser, X0Prediction
from unnoise.diffusion.guidance import Guidance
from unnoise.diffusion.noise import Noise
from unnoise.diffusion.samplers import DDIM, Ancestral, Heun, Sampler
from unnoise.diffusion.schedules import linear
from unnoise.models.codec import PixelCodec
from unnoise.models.diffusion import DiffusionModel
from unnoise.models.trained import TrainedModel
from unnoise.networks.conditioning import Condition, Conditioner
from unnoise.report.figures.sampling import (
    Captions,
    GuidanceScales,
    Samplers,
    SamplingNoise,
    steps_for,
)
from unnoise.report.sheets import grid

DATA = Sprites(size=4, validation_size=6)
SAMPLER = Sampler(DDIM(), steps=3)


class Painter(nn.Module):
    """Paints what it is asked for: a picture of the colour in the condition's vector.

    Without a condition it keeps a little of what it sees. Counts its calls.
    """

    def __init__(self):
        super().__init__()
        self.weight, self.calls = nn.Parameter(torch.ones(())), 0

    def forward(self, x, t, condition):
        self.calls += 1
        return 0.3 * x if condition is None else condition.vector[..., None, None].expand_as(x)


class Colours(Conditioner):
    """Of a label or, where ``spoken``, of the length of a caption; null is no colour at all."""

    def __init__(self, spoken=False):
        super().__init__()
        self.reads = ("caption",) if spoken else ("label",)

    def forward(self, batch, keep):
        texts = batch.get("caption", ())
        number = batch["label"] if "label" in self.reads else torch.tensor([len(t) for t in texts])
        return Condition(vector=torch.where(keep[:, None], colour(number), 0))

    def examples(self, ids):
        return {"label": ids % 3} if "label" in self.reads else None

    def words(self, batch):
        return batch.get("caption")


def colour(number):
    """(B,) to (B, 3), none of them grey."""
    return torch.stack((0.1 + 0.01 * number, 0.2 - 0.01 * number, -0.3 + 0.01 * number), -1)


def model(conditioner=None):
    return DiffusionModel(
        Denoiser(Painter(), X0Prediction()), linear(), PixelCodec((3, 16, 16)), conditioner
    )


def trained(model):
    return TrainedModel(model, SAMPLER, {"data": {}}, Path("none.ckpt"), data=DATA)


def cells(picture):
    """The coloured pictures on a sheet, row by row."""
    pixels = np.asarray(picture)
    seen = pixels.max(-1) != pixels.min(-1)
    (tops, lefts) = (spans(seen.any(axis)) for axis in (1, 0))
    return [[pixels[a:b, c:d] for c, d in lefts] for a, b in tops]


def spans(flags):
    edges = np.flatnonzero(np.diff(np.pad(flags.astype(int), 1)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


@pytest.mark.parametrize(
    ("evaluations", "stepper", "steps"),
    [(5, DDIM(), 5), (5, Heun(), 3), (10, Heun(), 5), (1, Heun(), 1), (1000, Ancestral(), 1000)],
)
def test_steps_are_evaluations_shared_out_and_rounded_up(evaluations, stepper, steps):
    assert steps_for(evaluations, stepper) == steps


def test_guidance_shows_scale_times_the_condition_under_its_scale():
    """Null is 0, so that guided pictures are s·colour exactly."""
    scales = (0.5, 1, 2, 3)
    figure = GuidanceScales(scales, rows=3, pictures=2).draw(trained(model(Colours())))
    rows = cells(figure)
    assert len(rows) == 3
    for label, row in enumerate(rows):
        assert len(row) == 2 * len(scales)
        for place, cell in enumerate(row):
            s = scales[place // 2]
            expected = to_pixels(s * colour(torch.tensor(label)))
            assert cell.shape == (64, 64, 3)
            assert np.abs(cell.astype(int) - expected.numpy()).max() <= 1


def test_guidance_shows_pictures_that_are_asked_for_first():
    class Shown(Colours):
        def picture(self, batch):
            blue = torch.tensor([0, 0, 200], dtype=torch.uint8)
            return blue.view(1, 3, 1, 1).expand(len(batch["label"]), 3, 16, 16)

    figure = GuidanceScales((1, 2), rows=2, pictures=1).draw(trained(model(Shown())))
    for row in cells(figure):
        assert len(row) == 3
        assert (row[0] == [0, 0, 200]).all()


def test_samplers_cost_the_same_in_a_column():
    unconditional = model()
    samplers = {"ddim": Sampler(DDIM()), "heun": Sampler(Heun())}
    figure = Samplers(samplers, evaluations=(4, 9), pictures=4)
    rows = cells(figure.draw(trained(unconditional)))
    assert [len(row) for row in rows] == [2 * 2] * 4, "2 × 2 pictures in each of 2 × 2 cells"
    assert unconditional.denoiser.network.calls == (4 + 9) + (2 * 2 - 1 + 2 * 5 - 1)


def test_samplers_show_what_the_model_draws_from_one_noise():
    unconditional, noise = model(), Noise(7, torch.arange(1))
    figure = Samplers({"a": Sampler(DDIM()), "b": SAMPLER}, evaluations=(2, 6), pictures=1, seed=7)
    rows = cells(figure.draw(trained(unconditional)))
    for column, steps in enumerate((2, 6)):
        x = unconditional.sample_signal(Sampler(DDIM(), steps=steps), noise)
        expected = np.asarray(grid(to_pixels(x), 1, width=160))[2:-2, 2:-2]
        for row in rows:
            assert np.array_equal(row[column], expected)


def test_too_many_steps_are_told_before_anything_is_drawn():
    unconditional = model()
    samplers = {"heun": Sampler(Heun()), "ddim": Sampler(DDIM())}
    with pytest.raises(ValueError, match=r"ddim with 1500 evaluations: .*leave them out"):
        Samplers(samplers, evaluations=(2, 1500)).draw(trained(unconditional))
    assert unconditional.denoiser.network.calls == 0


def test_each_figure_says_how_it_guides():
    loud = Sampler(DDIM(), guidance=Guidance(4))
    assert list(SamplingNoise().guidance(loud)) == list(Captions().guidance(loud)) == [4]
    assert list(GuidanceScales((0, 3)).guidance(loud)) == [0, 3]
    assert list(Samplers({"a": SAMPLER, "b": loud}).guidance(SAMPLER)) == [1, 4]


def test_captions_stand_below_their_pictures():
    words = ["a", "ab", "abc", "abcd"]
    figure = Captions(words, columns=2).draw(trained(model(Colours(spoken=True))))
    rows = cells(figure)
    found = [cell for row in rows for cell in row]
    assert [len(row) for row in rows] == [2, 2]
    for text, cell in zip(words, found, strict=True):
        expected = to_pixels(colour(torch.tensor(len(text)))).numpy()
        assert np.abs(cell.astype(int) - expected).max() <= 1


def test_captions_of_sprites_are_seen_ones_and_held_out_ones():
    spoken = model(Colours(spoken=True))
    rows = cells(Captions(count=3, columns=3).draw(trained(spoken)))
    seen, held_out = DATA.images("validation").captions[:3], DATA.held_out(3).captions
    for captions, row in zip((seen, held_out), rows, strict=True):
        for text, cell in zip(captions, row, strict=True):
            expected = to_pixels(colour(torch.tensor(len(text)))).numpy()
            assert np.abs(cell.astype(int) - expected).max() <= 1


def test_the_ablation_differs_in_noise_only():
    figure = SamplingNoise(("beta", "posterior", "none"), pictures=3)
    unconditional = model()
    rows = cells(figure.draw(trained(unconditional)))
    assert [len(row) for row in rows] == [3, 3, 3]
    for first, second in pairwise(rows):
        assert not np.array_equal(first[0], second[0])
    noise = Noise(0, torch.arange(3))
    for row, variance in zip(rows, ("beta", "posterior", "none"), strict=True):
        x = unconditional.sample_signal(Sampler(Ancestral(variance), steps=3), noise)
        expected = cells(grid(to_pixels(x), 3, width=960))[0]
        assert all(np.array_equal(a, b) for a, b in zip(row, expected, strict=True))


@pytest.mark.parametrize(
    ("figure", "of", "told"),
    [
        (GuidanceScales(), None, "unconditional: there is nothing to guide it towards"),
        (Captions(), None, "does not read captions"),
        (Captions(["a"]), Colours(), "does not read captions"),
    ],
)
def test_models_that_a_figure_is_not_about_are_refused(figure, of, told):
    with pytest.raises(ValueError, match=told):
        figure.draw(trained(model(of)))
