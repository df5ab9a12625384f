import torch
from torch import Tensor

from unnoise.networks.conditioning import StyleConditioner

KEEP = torch.ones(1, dtype=torch.bool)


def conditioner() -> StyleConditioner:
    torch.manual_seed(0)
    return StyleConditioner(channels=3, width=8)


def collage(places: list[tuple[int, int]], blocks: Tensor) -> Tensor:
    """Blocks (N, 3, 4, 4) on white, further from each other and the rim than the features see."""
    picture = torch.full((1, 3, 32, 32), 255, dtype=torch.uint8)
    for (row, column), block in zip(places, blocks, strict=True):
        picture[0, :, row : row + 4, column : column + 4] = block
    return picture


def style(of: StyleConditioner, picture: Tensor) -> Tensor:
    vector: Tensor = of({"image": picture}, KEEP).vector
    return vector


def test_style_does_not_know_places() -> None:
    of = conditioner()
    blocks = torch.randint(256, (3, 3, 4, 4), dtype=torch.uint8)
    here = style(of, collage([(4, 4), (14, 6), (22, 22)], blocks))
    there = style(of, collage([(20, 5), (5, 19), (14, 12)], blocks))
    torch.testing.assert_close(here, there, rtol=0, atol=1e-5)


def test_style_knows_colours_and_textures() -> None:
    of, places = conditioner(), [(4, 4), (20, 20)]
    smooth = torch.full((2, 3, 4, 4), 128, dtype=torch.uint8)
    red, checked = smooth.clone(), smooth.clone()
    red[:, 0] = 255
    checked[..., ::2, ::2] = checked[..., 1::2, 1::2] = 0
    checked[..., ::2, 1::2] = checked[..., 1::2, ::2] = 255
    plain = style(of, collage(places, smooth))
    for other in (red, checked):
        assert (style(of, collage(places, other)) - plain).abs().max() > 1e-3


def test_dropped_references_have_the_null_vector() -> None:
    of, keep = conditioner(), torch.tensor([True, False])
    with torch.no_grad():
        of.null.normal_()
    x = torch.randint(256, (2, 3, 16, 16), dtype=torch.uint8)
    vector = of({"image": x}, keep).vector
    assert torch.equal(vector[1], of.null)
    torch.testing.assert_close(vector[:1], style(of, x[:1]))


def test_style_is_learned() -> None:
    """Also where a picture is one colour, and its features have no deviation."""
    of = conditioner()
    x = torch.full((2, 3, 16, 16), 200, dtype=torch.uint8)
    of({"image": x}, torch.tensor([True, False])).vector.square().sum().backward()
    for p in (of.conv1.weight, of.conv2.weight, of.out.weight):
        assert p.grad is not None
        assert p.grad.isfinite().all()
        assert p.grad.any()
