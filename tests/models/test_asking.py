"""What is asked for comes from the conditioner or the data, and is shown with what was drawn."""

import numpy as np
import torch
from torch import nn

from unnoise.data.pixels import to_pixels
from unnoise.data.sprites import Sprites
from unnoise.diffusion.denoiser import Denoiser, X0Prediction
from unnoise.diffusion.schedules import linear
from unnoise.models.diffusion import DiffusionModel
from unnoise.models.prompts import asked, words
from unnoise.networks.conditioning import (
    ClassConditioner,
    Condition,
    Conditioner,
    Edges,
    PictureConditioner,
)
from unnoise.report.sheets import beside, grid, sheet

SPLIT = Sprites(size=4, validation_size=6).images("validation")


class Spoken(Conditioner):
    """Reads captions; its examples need data."""

    reads = ("caption",)

    def forward(self, batch, keep):
        return Condition()

    def words(self, batch):
        return batch["caption"]


def model(conditioner):
    return DiffusionModel(
        Denoiser(nn.Linear(1, 1), X0Prediction()), linear(), (3, 16, 16), conditioner
    )


def refuse():
    raise AssertionError("no data is needed")


def test_nothing_is_asked_of_an_unconditional_model():
    assert asked(model(None), refuse, torch.arange(3)) is None
    assert words(model(None), None, ["a"]) is None


def test_classes_are_asked_for_without_data_and_called_by_their_names():
    classes = model(ClassConditioner(3, 4))
    batch = asked(classes, refuse, torch.arange(5))
    assert batch["label"].tolist() == [0, 1, 2, 0, 1]
    assert words(classes, batch, ["cat", "dog", "emu"]) == ["cat", "dog", "emu", "cat", "dog"]
    assert words(classes, batch, [])[:2] == ["class 0", "class 1"]


def test_captions_are_those_of_the_split_which_begins_again():
    batch = asked(model(Spoken()), lambda: SPLIT, torch.tensor([1, 5, 6, 7]))
    rows = [1, 5, 0, 1]
    assert batch["caption"] == [SPLIT.captions[i] for i in rows]
    assert torch.equal(batch["image"], SPLIT.read(torch.tensor(rows)))
    assert torch.equal(batch["label"], SPLIT.labels[rows])
    assert words(model(Spoken()), batch, ["cat"]) == batch["caption"]


def test_a_sheet_has_the_view_to_the_left_of_each_picture():
    sketched = model(PictureConditioner(Edges()))
    x = torch.linspace(-1, 1, 2 * 3 * 256).view(2, 3, 16, 16)
    batch = asked(sketched, lambda: SPLIT, torch.arange(2))
    views = sketched.conditioner.picture(batch)
    expected = grid(beside(views, to_pixels(x)))
    assert np.array_equal(sheet(sketched, x, batch, ["unused"]), expected)


def test_a_sheet_has_the_words_below_each_picture():
    classes, x = model(ClassConditioner(2, 4)), torch.zeros(3, 3, 16, 16)
    expected = grid(to_pixels(x), captions=["cat", "dog", "cat"])
    assert np.array_equal(
        sheet(classes, x, {"label": torch.tensor([0, 1, 0])}, ["cat", "dog"]), expected
    )
    assert np.array_equal(sheet(model(None), x, None, ["cat"]), grid(to_pixels(x)))
