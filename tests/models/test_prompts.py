"""The prompts of a sample are a function of its id."""

import pytest
import torch
from torch import nn

from unnoise.data.sprites import Sprites
from unnoise.diffusion import schedules
from unnoise.diffusion.denoiser import Denoiser, EpsilonPrediction
from unnoise.diffusion.editing import ImageToImage, Interpolate
from unnoise.models.codec import PixelCodec
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
EDIT = ImageToImage(torch.zeros(1, 3, 16, 16), 0.5)
BETWEEN = Interpolate(torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 16), 3)


class Captions(Conditioner):
    reads = ("caption",)

    def forward(self, batch, keep):
        return Condition()


class Judge:
    names = ("a", "b", "c")

    def log_probability(self, x_t, level, labels):
        return torch.zeros(len(labels))


def model(conditioner):
    denoiser = Denoiser(nn.Conv2d(3, 3, 1), EpsilonPrediction())
    return DiffusionModel(denoiser, schedules.linear(), PixelCodec((3, 16, 16)), conditioner)


def prompts(conditioner=None, classifier=None, validation=lambda: SPRITES, **given):
    return Prompts(model(conditioner), validation, (), given, 5, classifier)


def unread():
    raise AssertionError("the data are not needed")


def test_what_is_given_is_taken_in_turn_without_reading_data():
    both = JointConditioner({"class": ClassConditioner(5, 4), "words": Captions()})
    batch = prompts(both, validation=unread, label=[4, 0, 2], caption=["x", "y"]).batch(IDS)
    assert batch["label"].tolist() == [2, 4, 0, 2]
    assert batch["caption"] == ["y", "x", "y", "x"]
    images = torch.arange(3, dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 3, 16, 16)
    shown = prompts(PictureConditioner(Edges()), validation=unread, image=images).batch(IDS)
    assert shown["image"][:, 0, 0, 0].tolist() == [2, 0, 1, 2]


def test_classes_are_examples_of_their_own():
    batch = prompts(ClassConditioner(5, 4), validation=unread).batch(IDS)
    assert batch["label"].tolist() == [0, 1, 2, 3]


def test_what_only_data_know_is_taken_from_validation_pictures():
    batch = prompts(Captions()).batch(IDS)
    assert batch == {"caption": [SPRITES.captions[k] for k in (5, 6, 0, 1)]}
    joint = JointConditioner(
        {"class": ClassConditioner(5, 4), "sketch": PictureConditioner(Edges())}
    )
    batch = prompts(joint, label=[3]).batch(IDS)
    assert torch.equal(batch["image"], SPRITES.read(IDS % 7))
    assert batch["label"].tolist() == [3, 3, 3, 3]


def test_a_classifier_brings_its_classes():
    assert prompts(classifier=Judge()).batch(IDS)["label"].tolist() == [2, 0, 1, 2]
    assert prompts(classifier=Judge(), label=[1]).batch(IDS)["label"].tolist() == [1, 1, 1, 1]


def test_an_unconditional_model_is_asked_for_nothing():
    assert prompts(validation=unread).batch(IDS) == {}


def missing():
    raise FileNotFoundError("no train-images-idx3-ubyte")


@pytest.mark.parametrize(
    ("ask", "told"),
    [
        (lambda: prompts(caption=["x"]), "captions are given, but the model is unconditional"),
        (lambda: prompts(Captions(), label=[0]), "but the model reads captions"),
        (lambda: prompts(Captions(), caption=[]), "the list is empty"),
        (lambda: prompts(ClassConditioner(5, 4), label=[0, 5]), r"\[0, 5\] are not classes 0 … 4"),
        (lambda: prompts(ClassConditioner(3, 4), label=[3]), r"\[3\] are not classes 0 … 2"),
        (
            lambda: prompts(JointConditioner({"class": ClassConditioner(3, 4)}), label=[3]),
            "not classes 0 … 2",
        ),
        (lambda: prompts(classifier=Judge(), label=[3]), "are not classes 0 … 2"),
        (lambda: prompts(ClassConditioner(5, 4), Judge()), "knows 3 classes, but the model 5"),
        (
            lambda: prompts(PictureConditioner(Edges()), image=torch.zeros(1, 1, 16, 16)),
            r"uint8 \(N, 3, 16, 16\)",
        ),
        (
            lambda: prompts(Captions(), validation=missing).batch(IDS),
            "give captions: .*no train-im",
        ),
        (lambda: prompts(Captions(), caption=["x", "y"]).check_edit(BETWEEN), "one caption"),
        (lambda: prompts(Captions()).check_edit(BETWEEN), "one caption"),
    ],
)
def test_prompts_that_do_not_fit_are_refused(ask, told):
    with pytest.raises(ValueError, match=told):
        ask()


def test_an_edit_wants_to_know_what_the_picture_shows():
    with pytest.raises(ValueError, match="reads labels: say what the edited picture shows"):
        prompts(ClassConditioner(5, 4)).check_edit(EDIT)
    prompts(ClassConditioner(5, 4), label=[3]).check_edit(EDIT)
    prompts(PictureConditioner(Edges())).check_edit(EDIT)


class Spoken(Captions):
    def words(self, batch):
        return batch["caption"]


def test_prompts_as_text_are_the_words_of_the_conditioner_or_names_of_classes():
    assert prompts().captions({}) is None
    classes = model(ClassConditioner(3, 4))
    named, unnamed = (Prompts(classes, unread, names) for names in (["cat", "dog", "emu"], ()))
    batch = named.batch(torch.arange(5))
    assert named.captions(batch) == ["cat", "dog", "emu", "cat", "dog"]
    assert unnamed.captions(batch)[:2] == ["class 0", "class 1"]
    spoken = prompts(Spoken())
    assert spoken.captions(spoken.batch(IDS)) == [SPRITES.captions[k] for k in (5, 6, 0, 1)]


def test_prompts_as_pictures_are_those_that_the_conditioner_sees():
    sketched = prompts(PictureConditioner(Edges()))
    batch = sketched.batch(IDS)
    assert torch.equal(sketched.pictures(batch), sketched.conditioner.picture(batch))
    assert prompts().pictures({}) is None
    assert prompts(Captions()).pictures({"caption": ["x"]}) is None


@pytest.mark.parametrize("empty", ["", "  "])
def test_an_empty_prompt_is_refused(empty):
    with pytest.raises(ValueError, match="caption 1 is empty"):
        prompts(Captions(), caption=["x", empty])


def named(labels, names=("cat", "dog", "emu"), classifier=None, conditioner=None):
    conditioner = conditioner or ClassConditioner(3, 4)
    return Prompts(model(conditioner), unread, names, {"label": labels}, None, classifier)


def test_classes_are_given_by_number_or_name():
    assert named(["dog", 0, "emu"]).batch(IDS)["label"].tolist() == [2, 1, 0, 2]
    digits = [str(number) for number in (1, 10, 2)]  # a number is a label, a text is a name
    assert named(["10", 2], digits).batch(torch.arange(2))["label"].tolist() == [1, 2]


def test_of_a_classifier_the_names_are_those_it_knows():
    plain = Prompts(model(None), unread, (), {"label": ["c", 0]}, None, Judge())
    assert plain.batch(torch.arange(2))["label"].tolist() == [2, 0]


@pytest.mark.parametrize(
    ("labels", "names", "said"),
    [
        (["dgo"], ("cat", "dog", "emu"), "no class 'dgo'; nearest are dog, "),
        (["EMU"], ("cat", "dog", "emu"), "no class 'EMU'; nearest are emu, "),
        (["x"], tuple(f"kind {k}" for k in range(3)), "no class 'x'; nearest are kind "),
        (["cat"], (), "what the classes are called is not known: use numbers"),
    ],
)
def test_a_name_that_is_none_is_told_the_nearest(labels, names, said):
    with pytest.raises(ValueError, match=said):
        named(labels, names)


def test_a_classifier_of_other_classes_is_refused():
    assert named([0], ("a", "b", "c"), Judge()).batch(torch.arange(1))["label"].tolist() == [0]
    with pytest.raises(ValueError, match="by label 1 the classifier means b, but the model x"):
        named([0], ("a", "x", "c"), Judge())
