"""What a split holds, picture by picture: a changed picture is told by its name."""

import pytest
import torch

from unnoise.data.memory import TensorImages

N = 300  # more than one batch


def split(pixel=0, label=0, caption="a"):
    """Pictures of which number 270 is as said."""
    pixels = torch.arange(N).view(N, 1, 1, 1).expand(N, 1, 4, 4).to(torch.uint8).clone()
    labels, captions = torch.zeros(N, dtype=torch.int64), ["a"] * N
    pixels[270, 0, 3, 3], labels[270], captions[270] = pixel, label, caption
    return TensorImages(pixels, labels, captions)


@pytest.mark.parametrize("other", [{"pixel": 1}, {"label": 1}, {"caption": "b"}])
def test_only_the_changed_picture_has_another_digest(other):
    before, after = list(split().contents()), list(split(**other).contents())
    assert [name for name, _ in before] == [f"image {k}" for k in range(N)]
    assert [one[0] for one, two in zip(before, after, strict=True) if one != two] == ["image 270"]


def test_digests_are_of_the_content_alone():
    assert list(split().contents()) == list(split().contents())
