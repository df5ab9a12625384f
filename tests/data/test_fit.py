"""Pictures of one shape in data of another: data.image_size=[height, width] and data.fit."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from unnoise.config.compose import check_command_line
from unnoise.config.identity import identity_of
from unnoise.data.decoding import fitted
from unnoise.data.folders import ImageFolder
from unnoise.data.pixels import check_multiple, resize
from unnoise.data.source import ImageSource
from unnoise.data.sprites import SpriteSheet
from unnoise.training.check import problems_of

FITS = ("crop", "pad", "stretch")
RED, BLUE, BLACK = (255, 0, 0), (0, 0, 255), (0, 0, 0)


def photo() -> Image.Image:
    """40 × 20 pixels: the left half red, the right half blue."""
    picture = Image.new("RGB", (40, 20), RED)
    picture.paste(BLUE, (20, 0, 40, 20))
    return picture


def bands(*colours: tuple[int, tuple[int, int, int]]) -> Tensor:
    """Vertical bands (3, 1, W), each of a width and a colour."""
    columns = [colour for width, colour in colours for _ in range(width)]
    return torch.tensor(columns, dtype=torch.uint8).T[:, None]


HALVES = bands((20, RED), (20, BLUE))


@pytest.mark.parametrize(
    ("fit", "size", "expected"),
    [
        ("crop", (20, 20), bands((10, RED), (10, BLUE)).expand(3, 20, 20)),
        ("crop", (20, 10), bands((5, RED), (5, BLUE)).expand(3, 20, 10)),
        ("crop", (10, 40), HALVES.expand(3, 10, 40)),
        ("stretch", (30, 40), HALVES.expand(3, 30, 40)),
        ("stretch", (7, 40), HALVES.expand(3, 7, 40)),
        *((fit, (20, 40), HALVES.expand(3, 20, 40)) for fit in FITS),
    ],
)
def test_pixels_where_no_column_is_resampled(fit, size, expected):
    assert torch.equal(fitted(photo(), (3, *size), fit), expected)
    pixels = torch.from_numpy(np.array(photo())).permute(2, 0, 1)[None]
    assert torch.equal(resize(pixels, size, fit)[0], expected)


def test_pad_adds_black_above_and_below_or_left_and_right():
    high = torch.zeros(3, 40, 40, dtype=torch.uint8)
    high[:, 10:30] = HALVES
    wide = bands((5, BLACK), (20, RED), (20, BLUE), (5, BLACK)).expand(3, 20, 50)
    for size, expected in (((40, 40), high), ((20, 50), wide)):
        assert torch.equal(fitted(photo(), (3, *size), "pad"), expected)
        pixels = torch.from_numpy(np.array(photo())).permute(2, 0, 1)[None]
        assert torch.equal(resize(pixels, size, "pad")[0], expected)


@pytest.mark.parametrize(("size", "there"), [((16, 16), (8, 16)), ((10, 30), (10, 20))])
def test_pad_resizes_to_what_fits_inside(size, there):
    white = torch.from_numpy(np.array(Image.new("L", (40, 20), "white")))[None, None]
    top, left = (size[0] - there[0]) // 2, (size[1] - there[1]) // 2
    expected = torch.zeros(1, *size, dtype=torch.uint8)
    expected[:, top : top + there[0], left : left + there[1]] = 255
    assert torch.equal(fitted(Image.new("L", (40, 20), "white"), (1, *size), "pad"), expected)
    assert torch.equal(resize(white, size, "pad")[0], expected)


@pytest.mark.parametrize("size", [(16, 16), (16, 24), (24, 8)])
def test_stretch_and_crop_leave_nothing_black(size):
    for fit in ("crop", "stretch"):
        assert (fitted(Image.new("L", (40, 20), "white"), (1, *size), fit) == 255).all()


@pytest.mark.parametrize("fit", FITS)
def test_a_picture_one_pixel_high_is_still_a_picture(fit):
    assert fitted(Image.new("L", (1000, 1), "white"), (1, 16, 24), fit).shape == (1, 16, 24)
    line = torch.full((1, 1, 1, 1000), 255, dtype=torch.uint8)
    assert resize(line, (16, 24), fit).shape == (1, 1, 16, 24)


def taken_sideways(path: Path) -> None:
    """``photo`` as a camera turned by 90° saves it: upright, red is above blue."""
    exif = Image.Exif()
    exif[0x0112] = 6
    path.parent.mkdir(parents=True, exist_ok=True)
    photo().save(path, exif=exif)


@pytest.mark.parametrize("fit", FITS)
def test_pictures_are_turned_upright_before_they_are_fitted(tmp_path, fit):
    for split in ("train", "val"):
        taken_sideways(tmp_path / split / "a.png")
    source = ImageFolder(str(tmp_path), (40, 20), fit=fit)
    found = source.images("train").read(torch.tensor([0]))[0]
    assert source.shape == found.shape == (3, 40, 20)
    assert torch.equal(found, HALVES.transpose(1, 2).expand(3, 40, 20))


def test_the_fingerprint_follows_size_and_fit_not_the_spelling(tmp_path):
    for split in ("train", "val"):
        taken_sideways(tmp_path / split / "a.png")

    def of(size, fit="crop"):
        return ImageFolder(str(tmp_path), size, fit=fit).images("train").fingerprint

    assert of(16) == of((16, 16)) == of([16, 16])
    assert len({of(16), of((16, 24)), of((24, 16)), of(16, "pad"), of(16, "stretch")}) == 5


def test_the_run_follows_size_and_fit_not_the_spelling(tmp_path):
    taken_sideways(tmp_path / "a.png")

    def of(*changes):
        data = ["data=image_folder", f"data.root={tmp_path}", "batch_size=1"]
        return identity_of(check_command_line("train", [*data, *changes])[0])

    assert of("data.image_size=16") == of("data.image_size=[16,16]")
    assert of() == of("data.image_size=[32,32]") == of("data.fit=crop")
    assert len({of(), of("data.image_size=[16,32]"), of("data.fit=pad")}) == 3


@pytest.mark.parametrize(
    ("size", "problem"),
    [
        ("0", "data.image_size: must be >= 4, not 0"),
        ("-16", "data.image_size: must be >= 4, not -16"),
        ("[16,-16]", "data.image_size.1: must be >= 4, not -16"),
        ("[16,16,16]", "data.image_size: must have at most 2 items, not 3"),
        ("[16]", "data.image_size: lacks item 2"),
        ("16.0", "data.image_size: 16.0 is not a whole number or a list"),
        ("[16,16.5]", "data.image_size.1: 16.5 is not a whole number"),
        ("16x32", "data.image_size: '16x32' is not a whole number or a list"),
    ],
)
@pytest.mark.parametrize("data", ["image_folder", "mnist", "cifar10", "hugging_face"])
def test_sizes_that_are_none_are_refused(tmp_path, data, size, problem):
    named = {"image_folder": [f"data.root={tmp_path}"], "hugging_face": ["data.name=x"]}
    line = [f"data={data}", f"data.image_size={size}", *named.get(data, [])]
    assert problem in map(str, problems_of(check_command_line("train", line)[0]))


def test_sheets_may_have_cells_that_are_no_squares(tmp_path):
    cells = np.random.default_rng(0).integers(0, 256, (12, 6, 4, 3), dtype=np.uint8)
    pixels = cells.reshape(3, 4, 6, 4, 3).transpose(0, 2, 1, 3, 4).reshape(18, 16, 3)
    Image.fromarray(pixels).save(tmp_path / "sheet.png")
    source = SpriteSheet(str(tmp_path / "sheet.png"), (12, 8), (6, 4), validation_share=0.3)
    found = torch.cat([source.images(s).images for s in ("train", "validation")])
    assert source.shape == found.shape[1:] == (3, 12, 8)
    there = {cell.tobytes() for cell in found[:, :, ::2, 1::2].contiguous().numpy()}
    assert there == {cell.transpose(2, 0, 1).tobytes() for cell in cells}
    with pytest.raises(ValueError, match=r"not a multiple of cell .6, 4., the same for"):
        SpriteSheet("sheet.png", (12, 4), (6, 4))


def test_pixels_become_squares_not_rectangles():
    check_multiple((32, 48), (16, 24), "cell")
    for size in ((32, 24), (16, 48), 16):
        with pytest.raises(ValueError, match="is not a multiple of cell"):
            check_multiple(size, (16, 24), "cell")


def test_every_source_has_a_shape():
    class Plain(ImageSource):
        class_names = check = prepare = images = staticmethod(tuple)

    assert Plain(16, 3).shape == (3, 16, 16)
    assert Plain((16, 24), 1).shape == Plain([16, 24], 1).shape == (1, 16, 24)
