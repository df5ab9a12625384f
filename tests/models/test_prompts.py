"""What a picture is asked for is a function of its number."""

import pytest
import torch
from torch import nn

from unnoise.data.sprites import Sprites
from unnoise.diffusion import schedules
from unnoise.diffusion.denoiser import Denoiser, EpsilonPrediction
from unnoise.models.diffusion import DiffusionModel
from unnoise.models.prompts import Prompts
from unnoise.networks.conditioning import (
    ClassConditioner,
    Condition,
    Conditioner,
    Edges,
    JointConditioner,
    PictureConditioner,
)

SPRITES = Sprites(size=10, validation_size=7).images("validation")
IDS = torch.tensor([5, 6, 7, 8])


class Captions(Conditioner):
    reads = ("caption",)

    def forward(self, batch, keep):
        return Condition()


class Judge:
    names = ("a", "b", "c")

    def log_probability(self, x_t, level, labels):
        raise NotImplementedError


def asked(conditioner=None, classifier=None, validation=lambda: SPRITES, **given):
    denoiser = Denoiser(nn.Conv2d(3, 3, 1), EpsilonPrediction())
    model = DiffusionModel(denoiser, schedules.linear(), (3, 16, 16), conditioner)
    return Prompts(model, given, 5, classifier, validation)


def unread():
    raise AssertionError("the data are not needed")


def test_what_is_given_is_taken_in_turn_without_reading_data():
    both = JointConditioner({"class": ClassConditioner(5, 4), "words": Captions()})
    batch = asked(both, validation=unread, label=[4, 0, 2], caption=["x", "y"]).batch(IDS)
    assert batch["label"].tolist() == [2, 4, 0, 2]
    assert batch["caption"] == ["y", "x", "y", "x"]
    images = torch.arange(3, dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 3, 16, 16)
    shown = asked(PictureConditioner(Edges()), validation=unread, image=images).batch(IDS)
    assert shown["image"][:, 0, 0, 0].tolist() == [2, 0, 1, 2]


def test_classes_are_examples_of_their_own():
    batch = asked(ClassConditioner(5, 4), validation=unread).batch(IDS)
    assert batch["label"].tolist() == [0, 1, 2, 3]


def test_what_only_data_know_is_taken_from_validation_pictures():
    batch = asked(Captions()).batch(IDS)
    assert batch == {"caption": [SPRITES.captions[k] for k in (5, 6, 0, 1)]}
    joint = JointConditioner(
        {"class": ClassConditioner(5, 4), "sketch": PictureConditioner(Edges())}
    )
    batch = asked(joint, label=[3]).batch(IDS)
    assert torch.equal(batch["image"], SPRITES.read(IDS % 7))
    assert batch["label"].tolist() == [3, 3, 3, 3]


def test_a_classifier_brings_its_classes():
    assert asked(classifier=Judge()).batch(IDS)["label"].tolist() == [2, 0, 1, 2]
    assert asked(classifier=Judge(), label=[1]).batch(IDS)["label"].tolist() == [1, 1, 1, 1]


def test_an_unconditional_model_is_asked_for_nothing():
    assert asked(validation=unread).batch(IDS) == {}


def missing():
    raise FileNotFoundError("no train-images-idx3-ubyte")


@pytest.mark.parametrize(
    ("ask", "told"),
    [
        (lambda: asked(caption=["x"]), "captions are given, but the model is unconditional"),
        (lambda: asked(Captions(), label=[0]), "but the model is asked by captions"),
        (lambda: asked(Captions(), caption=[]), "there is none"),
        (lambda: asked(ClassConditioner(5, 4), label=[0, 5]), r"\[0, 5\] are not classes 0 … 4"),
        (lambda: asked(ClassConditioner(3, 4), label=[3]), r"\[3\] are not classes 0 … 2"),
        (
            lambda: asked(JointConditioner({"class": ClassConditioner(3, 4)}), label=[3]),
            "not classes 0 … 2",
        ),
        (lambda: asked(classifier=Judge(), label=[3]), "are not classes 0 … 2"),
        (lambda: asked(ClassConditioner(5, 4), Judge()), "knows 3 classes, but the model 5"),
        (
            lambda: asked(PictureConditioner(Edges()), image=torch.zeros(1, 1, 16, 16)),
            r"uint8 \(N, 3, 16, 16\)",
        ),
        (lambda: asked(Captions(), validation=missing).batch(IDS), "give captions: .*no train-im"),
        (lambda: asked(Captions(), caption=["x", "y"]).check_same(), "one caption"),
        (lambda: asked(Captions()).check_same(), "one caption"),
    ],
)
def test_what_cannot_be_asked_is_refused(ask, told):
    with pytest.raises(ValueError, match=told):
        ask()


def test_an_edit_wants_to_know_what_the_picture_shows():
    with pytest.raises(ValueError, match="asked by labels: say what the edited picture shows"):
        asked(ClassConditioner(5, 4)).check_told()
    asked(ClassConditioner(5, 4), label=[3]).check_told()
    asked(PictureConditioner(Edges())).check_told()
