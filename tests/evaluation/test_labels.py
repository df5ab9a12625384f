import torch

from unnoise.data.sprites import COLOURS, KINDS, Sprites
from unnoise.evaluation.classifiers import UNSEEN, shown, splits

SOURCE = Sprites(size=60, validation_size=40)


def test_labels_of_sprites_are_what_their_captions_say():
    pictures = splits(SOURCE, "kind")
    assert set(pictures.names) == {kind.name for kind in KINDS}
    validation = SOURCE.images("validation")
    labels = pictures.real["validation"].labels
    for caption, label in zip(validation.captions, labels.tolist(), strict=True):
        assert f" {pictures.names[label]}" in caption


def test_a_judge_learns_held_out_pairings_but_not_those_it_is_held_against():
    pictures = splits(SOURCE, "colour")
    assert sorted(pictures.names) == sorted(COLOURS)
    test = pictures.real["held out"]
    assert len(test) == UNSEEN
    learned = {each.numpy().tobytes() for each in pictures.training.images}
    assert not any(each.numpy().tobytes() in learned for each in test.images)
    pairings = SOURCE.held_out(2 * UNSEEN)
    assert pairings.images[-1].numpy().tobytes() in learned


def test_a_part_that_a_kind_lacks_is_a_class_of_its_own():
    names = splits(SOURCE, "item").names
    assert "none" in names
    labels = shown(SOURCE.images("train"), "item", names)
    food = torch.tensor([each.class_name == "food" for each in SOURCE.images("train").attributes])
    assert (labels[food] == names.index("none")).all()
