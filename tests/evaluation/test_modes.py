"""Recognition of sprites, and the share of combinations that pictures reach."""

import pytest
import torch

from unnoise.data.sprites import Sprites
from unnoise.data.sprites.recognition import CLOSE, nearest
from unnoise.evaluation.modes import modes

SOURCE = Sprites(600, 100)


@pytest.fixture(scope="module")
def images():
    return SOURCE.images("train").images


def test_every_sprite_is_recognised_as_what_it_is(images):
    lessons = SOURCE.lessons("train").labels[:150]
    assert torch.equal(SOURCE.combination(images[:150]), lessons)
    assert nearest(images[:150]).distance.max() < 0.2


def test_held_out_ones_have_numbers_of_their_own():
    numbers = SOURCE.combination(SOURCE.held_out(40).images)
    assert (numbers >= SOURCE.combinations).all()


@pytest.mark.parametrize("deviation", [10.0, 25.0])
def test_noise_is_the_distance_and_changes_no_answer(images, deviation):
    grey = images[:60].float().clamp(60, 195)  # so that nothing is clipped away
    noise = torch.randn(grey.shape, generator=torch.Generator().manual_seed(0))
    there, moved = nearest(images[:60]), nearest(images[:60].float() + deviation * noise)
    assert torch.equal(there.kind, moved.kind)
    assert torch.equal(there.item, moved.item)
    assert moved.distance.mean() == pytest.approx(deviation, rel=0.05)


def test_what_is_no_sprite_shows_nothing(images):
    mean = images.float().mean(0, keepdim=True).byte()
    noise = torch.randint(0, 256, (5, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    assert (SOURCE.combination(torch.cat((mean, noise.byte()))) == -1).all()
    assert nearest(mean).distance > CLOSE


def test_modes_are_the_share_of_combinations_that_are_reached(images):
    once = modes(SOURCE, images[:1].expand(20, -1, -1, -1))
    assert once["recognised"].value == 1
    assert once["modes"].value == pytest.approx(1 / SOURCE.combinations)
    assert once["modes"].error == 0
    few = modes(SOURCE, images[:100])
    distinct = len(SOURCE.lessons("train").labels[:100].unique())
    assert few["modes"].value == pytest.approx(distinct / SOURCE.combinations)
    assert few["modes"].error > 0


@pytest.mark.parametrize("period", [1, 10, 30])
def test_errors_are_alike_where_kinds_take_turns(period):
    """As classes do where a model draws them in turn: a group is not a kind."""

    class Source:
        combinations = 300

        def combination(self, pictures):
            return pictures

    draw, n, values, errors = torch.Generator().manual_seed(0), 600, [], []
    for _ in range(40):
        kind = torch.arange(n) % period
        within = torch.randint(300 // period, (n,), generator=draw)
        found = modes(Source(), kind * (300 // period) + within)["modes"]
        values.append(found.value)
        errors.append(found.error)
    assert 1 < torch.tensor(errors).mean() / torch.tensor(values).std() < 2.5


def test_few_pictures_are_a_group_each():
    class Source:
        combinations = 4

        def combination(self, pictures):
            return pictures

    found = modes(Source(), torch.tensor([0, 1, 1, -1, -1, 2]))["recognised"]
    share = 4 / 6
    assert found.error == pytest.approx((share * (1 - share) / 5) ** 0.5)
