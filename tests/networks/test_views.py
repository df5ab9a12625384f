from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from unnoise.data.sprites import Sprites
from unnoise.networks.conditioning import (
    ClassConditioner,
    ConditionShape,
    Edges,
    Grey,
    JointConditioner,
    LowResolution,
    PictureConditioner,
    View,
)
from unnoise.training.rules import conditions


def pictures(channels: int = 3, size: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (4, channels, size, size)
    return torch.randint(256, shape, dtype=torch.uint8, generator=generator)


def square(inside: list[int], outside: list[int]) -> Tensor:
    """A 6 × 6 square of one colour, its corner at (5, 5), on a ground of another."""
    picture = torch.tensor(outside).reshape(1, -1, 1, 1).repeat(1, 1, 16, 16)
    picture[:, :, 5:11, 5:11] = torch.tensor(inside).reshape(1, -1, 1, 1)
    return picture.to(torch.uint8)


@pytest.mark.parametrize(
    ("inside", "outside"),
    [([0], [255]), ([100], [180]), ([200, 0, 0], [255, 255, 255]), ([0, 0, 250], [60, 200, 60])],
)
def test_edges_of_a_dark_square_are_its_border(inside: list[int], outside: list[int]) -> None:
    expected = torch.zeros(1, 1, 16, 16)
    expected[:, :, 5:11, 5:11] = 1
    expected[:, :, 6:10, 6:10] = 0
    assert torch.equal(Edges()(square(inside, outside)), expected)


def test_edges_of_a_light_square_lie_around_it() -> None:
    expected = torch.zeros(1, 1, 16, 16)
    for side in (4, 11):
        expected[:, :, side, 5:11] = 1
        expected[:, :, 5:11, side] = 1
    assert torch.equal(Edges()(square([255], [0])), expected)


def test_edges_begin_at_the_threshold() -> None:
    picture = square([150], [199])
    assert not Edges(threshold=0.2)(picture).any()
    assert Edges(threshold=0.19)(picture).sum() == 20


@pytest.mark.parametrize("turn", [lambda x: x.flip(3), lambda x: x.flip(2), lambda x: x.mT])
def test_edges_turn_with_the_picture(turn: Callable[[Tensor], Tensor]) -> None:
    x = pictures()
    edges = Edges()(x)
    assert 0.1 < edges.mean() < 0.9
    assert torch.equal(Edges()(turn(x)), turn(edges))


def test_low_resolution_keeps_the_means_of_blocks() -> None:
    x = pictures()
    shown = LowResolution(factor=4, channels=3)(x)
    blocks = x.double().div(255).unfold(2, 4, 4).unfold(3, 4, 4)  # (B, C, 4, 4, 4, 4)
    seen = shown.double().unfold(2, 4, 4).unfold(3, 4, 4)
    means = blocks.mean((4, 5), keepdim=True)
    torch.testing.assert_close(seen, means.expand_as(seen), rtol=0, atol=1e-6)


def test_low_resolution_divides_the_picture() -> None:
    with pytest.raises(ValueError, match="factor 5 does not divide the 16×16 pixels"):
        LowResolution(factor=5, channels=3)(pictures())
    for size in ((12, 16), (16, 12)):
        x = pictures()[..., : size[0], : size[1]]
        assert LowResolution(factor=4, channels=3)(x).shape == x.shape
        with pytest.raises(
            ValueError, match="factor 8 does not divide the {}×{} pixels".format(*size)
        ):
            LowResolution(factor=8, channels=3)(x)


def test_grey_is_luma() -> None:
    x = pictures()
    expected = torch.einsum("c,bchw->bhw", torch.tensor([0.299, 0.587, 0.114]), x.float()) / 255
    torch.testing.assert_close(Grey(colours=3)(x)[:, 0], expected)


def test_grey_pictures_cannot_be_coloured() -> None:
    with pytest.raises(ValueError, match="1 channels have no colours"):
        Grey(colours=1)


VIEWS = [Edges(), LowResolution(factor=2, channels=3), Grey(colours=3)]


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: type(view).__name__)
def test_views_fill_their_channels_within_0_and_1(view: View) -> None:
    shown = view(pictures())
    assert shown.shape == (4, view.channels, 16, 16)
    assert shown.dtype == torch.float32
    assert shown.min() >= 0
    assert 0.8 < shown.max() <= 1


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: type(view).__name__)
def test_views_of_a_part_are_parts_of_the_view(view: View) -> None:
    wide = pictures()[..., :8, :]
    assert torch.equal(view(wide)[..., :6, :], view(pictures())[..., :6, :])


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: type(view).__name__)
def test_a_dropped_view_is_minus_one_everywhere(view: View) -> None:
    conditioner, x = PictureConditioner(view), pictures()
    assert conditioner.shape == ConditionShape(spatial=view.channels)
    keep = torch.tensor([True, False, False, True])
    spatial = conditioner({"image": x}, keep).spatial
    assert torch.equal(spatial[keep], view(x)[keep])
    assert torch.equal(spatial[~keep], torch.full_like(spatial[~keep], -1))


def test_the_picture_to_print_is_the_view() -> None:
    x = pictures(channels=1)
    shown = PictureConditioner(LowResolution(factor=4, channels=1)).picture({"image": x})
    assert shown.dtype == torch.uint8
    assert (shown.float().mean((2, 3)) - x.float().mean((2, 3))).abs().max() < 0.5


@pytest.mark.parametrize(("factor", "told"), [(4, []), (5, ["factor 5 does not divide the 16×16"])])
def test_a_part_of_a_joint_condition_is_tried_before_a_run(factor: int, told: list[str]) -> None:
    with torch.device("meta"):
        low = PictureConditioner(LowResolution(factor, 3))
        both = JointConditioner({"class": ClassConditioner(5, 4), "low": low})
    for each in (low, both):
        found = list(conditions(Sprites(10, 10), each, flip=False))
        assert [problem.message[: len(told[0])] for problem in found] == told
