"""What is recognised in scenes is what they show; what they do not show is not."""

import numpy as np
import pytest
import torch

from unnoise.data.scenes import Scenes
from unnoise.data.scenes.agreement import ATTRIBUTES, agreement, related
from unnoise.data.scenes.backgrounds import BACKGROUNDS, SYMBOLS
from unnoise.data.scenes.captions import states_relation
from unnoise.data.scenes.drawing import draw
from unnoise.data.scenes.draws import Draws, key_of
from unnoise.data.scenes.plans import Group
from unnoise.data.scenes.recognition import (
    Recognised,
    Subject,
    Sums,
    backgrounds,
    correlation,
    recognise,
)
from unnoise.data.source import Recognises


def subject(kind="bat", colour="red", item=None, left=0, top=0, width=14, height=14):
    return Subject(kind, colour, item, left, top, width, height, 1.0)


@pytest.mark.parametrize(("side", "split"), [(64, "validation"), (64, "held out"), (128, "train")])
def test_what_real_scenes_show_is_recognised(side, split):
    source = Scenes(image_size=side)
    images = source.held_out() if split == "held out" else source.images(split)
    n = 48 if side == 64 else 16
    agreed = source.agreement(images.read(torch.arange(n)), images.attributes[:n])
    assert [*agreed] == [*ATTRIBUTES]
    for name in ("background", "kind", "colour", "number", "relation"):
        assert agreed[name].float().mean() > 0.97, name
    assert agreed["item"].float().mean() > 0.95  # one can be hidden
    assert len(agreed["background"]) == n > len(agreed["relation"]) > 0
    assert isinstance(source, Recognises)


def test_boxes_are_those_that_subjects_stand_in():
    images = Scenes().images("validation")
    for index in range(16):
        (found,) = recognise(images.read(torch.tensor([index])))
        boxes = {tuple(each[3:7]) for each in found.subjects}
        true = {tuple(each[1:5]) for each in images.attributes[index].subjects}
        assert all(min(np.abs(np.subtract(a, b)).max() for b in boxes) <= 2 for a in true)


def test_another_scene_is_not_what_a_picture_shows():
    source = Scenes()
    images = source.images("validation")
    agreed = source.agreement(images.read(torch.arange(24)), images.attributes[24:48])
    assert all(hit.float().mean() < 0.2 for name, hit in agreed.items() if name != "background")
    assert agreed["background"].all()  # they take turns
    assert not agreed["all"].any()


@pytest.mark.parametrize("number", range(len(BACKGROUNDS)))
def test_where_nobody_is_nobody_is_found(number):
    pictures = []
    for seed in range(4):
        tones, colours = draw(number, 26, (), (), 64, Draws(key_of(seed), number, 0))
        pictures.append(torch.from_numpy(colours[tones]).permute(2, 0, 1))
    assert recognise(torch.stack(pictures)) == [Recognised(BACKGROUNDS[number].name, ())] * 4


def test_the_correlation_is_that_of_the_formula():
    generator = torch.Generator().manual_seed(0)
    symbols = torch.randint(1, len(SYMBOLS), (2, 40), generator=generator)
    pixels, tones = (torch.rand(*shape, generator=generator) * 255
                     for shape in ((2, 40, 3), (2, 8, len(SYMBOLS), 3)))  # fmt: skip
    weight = (torch.rand(2, 40, generator=generator) < 0.7).float()
    found = correlation(Sums.of(symbols, weight, pixels), tones)
    for n in range(2):
        here = weight[n] > 0
        b = pixels[n, here]
        for c in range(8):
            a = tones[n, c, symbols[n, here]]
            centred, apart = a - a.mean(0), b - a.mean(0)
            rho = (centred * apart).sum() / (centred.norm() * apart.norm())
            torch.testing.assert_close(found[n, c], rho, rtol=1e-4, atol=1e-5)


def test_what_is_paler_matches_and_what_is_of_another_colour_does_not():
    symbols, weight = torch.tensor([[1, 2, 3, 4]]), torch.ones(1, 4)
    tones = torch.zeros(1, 1, len(SYMBOLS), 3)
    tones[0, 0, 1:5] = torch.tensor([[0.0, 0, 0], [90, 0, 0], [200, 30, 30], [250, 90, 90]])
    a = tones[0, 0, 1:5]
    paler = a.mean(0) + 0.4 * (a - a.mean(0))
    matches = [
        float(correlation(Sums.of(symbols, weight, b[None]), tones)[0, 0])
        for b in (a, paler, a[:, [2, 0, 1]], 255 - a)
    ]
    assert matches[:2] == pytest.approx([1, 1], abs=1e-4)
    assert matches[2] < 0.6
    assert matches[3] < 0


def test_backgrounds_are_told_apart_even_when_blurred():
    images = Scenes(160).images("train")
    pictures = images.read(torch.arange(160)).float()
    blurred = torch.nn.functional.avg_pool2d(pictures, 5, 1, 2, count_include_pad=False)
    for each in (pictures, blurred):
        assert (backgrounds(each) == images.labels).float().mean() > 0.98


def test_each_attribute_is_judged_by_itself():
    class Says:
        background, relation = "cave", "left of"
        caption = "two red knights with axes left of a blue bat in a cave"
        groups = (
            Group(0, 2, "small", "red", "axe", "gold", None),
            Group(10, 1, "small", "blue", None, None, None),
        )

    knights = [subject("knight", "red", "axe", left) for left in (0, 15)]
    bat = subject("bat", "blue", None, 40)
    assert [group.kind for group in Says.groups] == ["knight", "bat"]

    def wrong(background, *subjects):
        agreed = agreement(Recognised(background, subjects), Says())
        assert agreed["all"] == all(agreed[name] for name in ATTRIBUTES[:-1])
        return {name for name in ATTRIBUTES[:-1] if not agreed[name]}

    assert wrong("cave", *knights, bat) == set()
    assert wrong("beach", *knights, bat) == {"background"}
    assert wrong("cave", *knights, bat, subject("slime", "red")) == {"kind"}
    assert wrong("cave", *knights, bat._replace(colour="green")) == {"colour", "relation"}
    assert wrong("cave", knights[0], bat) == {"number"}
    assert wrong("cave", knights[0], knights[1]._replace(item=None), bat) == set()
    assert wrong("cave", *(k._replace(item="sword") for k in knights), bat) == {"item"}
    assert wrong("cave", *knights, bat._replace(left=5)) == {"relation"}


def test_relations_hold_where_groups_stand_so():
    low, high, right = subject(top=40), subject(top=5), subject(left=30, top=40)
    assert related("left of", [[low], [right]])
    assert not related("left of", [[right], [low]])
    assert not related("left of", [[low, right], [right]])
    assert related("above", [[high], [low]])
    assert not related("above", [[low], [high]])
    assert not related("above", [[high], [right]])  # no columns in common
    assert related("in front of", [[low], [high]])
    assert not related("in front of", [[high], [low]])
    far = subject(left=50)
    for sides in ([low], [far]), ([far], [low]):
        assert related("between", [[right], *sides])
    assert not related("between", [[low], [right], [far]])


def test_captions_say_whether_they_state_a_relation():
    scenes = Scenes().images("train").attributes[:400]
    stating = [scene for scene in scenes if states_relation(scene.caption)]
    assert all(scene.relation for scene in stating)
    related_ones = sum(scene.relation is not None for scene in scenes)
    assert 0.65 < len(stating) / related_ones < 0.85  # of four wordings one leaves it out
