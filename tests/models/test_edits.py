"""Masks paint what they mark, where they mark it."""

import numpy as np
import pytest
import torch
from PIL import Image

from unnoise.data.decoding import Decoder
from unnoise.data.given import fitted_mask, read_mask
from unnoise.models.codec import PixelCodec
from unnoise.models.edits import EditKeys

MARKED = np.zeros((12, 20), dtype=bool)
MARKED[2:7, 3:11] = True
MARKED[9, 17] = True


def upright_photo(path, width=20, height=12, orientation=1):
    """A photo whose file is stored so that it is ``width`` × ``height`` once turned upright."""
    stored = (height, width) if orientation >= 5 else (width, height)
    exif = Image.Exif()
    exif[0x112] = orientation
    Image.new("RGB", stored, "red").save(path, exif=exif)
    return str(path)


@pytest.fixture
def photo(tmp_path):
    return upright_photo(tmp_path / "photo.png")


def layers():
    """The same mask in every mode that has one."""
    white, grey = MARKED.astype(np.uint8) * 255, np.full(MARKED.shape, 255, np.uint8)
    palette = Image.fromarray(MARKED.astype(np.uint8)).convert("P")
    palette.putpalette([0, 0, 0, 255, 255, 255])
    return {
        "black and white": Image.fromarray(white),
        "one bit": Image.fromarray(white).convert("1"),
        "colour": Image.fromarray(white).convert("RGB"),
        "sixteen bits": Image.fromarray(white.astype(np.uint16) * 257),
        "palette": palette,
        "white on transparent white": Image.merge("LA", [Image.fromarray(grey),
                                                          Image.fromarray(white)]),
        "white on transparent black": Image.merge("LA", [Image.fromarray(white)] * 2),
        "coloured layer": Image.merge("RGBA", [Image.fromarray(grey)] * 3
                                      + [Image.fromarray(white)]),
        "opaque": Image.merge("RGBA", [Image.fromarray(white)] * 3 + [Image.fromarray(grey)]),
    }  # fmt: skip


@pytest.mark.parametrize("kind", layers())
def test_exactly_what_is_white_is_painted(kind, photo, tmp_path):
    layers()[kind].save(tmp_path / "mask.png")
    mask = read_mask(str(tmp_path / "mask.png"), photo)
    assert np.array_equal(fitted_mask(mask, (12, 20), "crop")[0, 0], MARKED)


def test_of_grey_and_of_glass_the_lighter_half_is_painted(photo, tmp_path):
    values = np.zeros((12, 20, 2), np.uint8)
    values[0], values[1], values[2], values[3] = (127, 255), (128, 255), (255, 127), (255, 128)
    values[4], values[5] = (180, 180), (190, 190)  # 180 · 180 / 255 = 127, 190 · 190 / 255 = 142
    Image.fromarray(values, "LA").save(tmp_path / "mask.png")
    rows = fitted_mask(read_mask(str(tmp_path / "mask.png"), photo), (12, 20), "crop")[0, 0]
    assert [k for k in range(12) if rows[k].all()] == [1, 3, 5]
    assert rows.sum() == 60


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("how", ["as seen", "with the photo's data", "as stored"])
def test_a_mask_lies_on_the_photo_that_is_seen(orientation, how, tmp_path):
    photo = upright_photo(tmp_path / "photo.png", orientation=orientation)
    seen, exif = Image.fromarray(MARKED), Image.Exif()
    if how == "as stored" and orientation < 5:
        pytest.skip("of the same size: a mask without data of its own is taken as seen")
    if how != "as seen":
        exif[0x112] = orientation
        back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
        stored = seen.transpose(Image.Transpose(back[orientation])) if orientation > 1 else seen
        stored.save(tmp_path / "mask.png", **({} if how == "as stored" else {"exif": exif}))
    else:
        seen.save(tmp_path / "mask.png")
    mask = read_mask(str(tmp_path / "mask.png"), photo)
    assert np.array_equal(np.asarray(mask) > 0, MARKED)


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("shrunk", [1, 2, 4])
def test_a_mask_neither_moves_nor_grows_where_the_photo_is_fitted(fit, shrunk, tmp_path):
    """A photo that shows its own mask: the two agree wherever a pixel is all one or the other."""
    h, w = 24 * shrunk, 40 * shrunk
    seen = np.zeros((h, w), bool)
    seen[4 * shrunk : 16 * shrunk, 10 * shrunk : 27 * shrunk] = True
    Image.fromarray(seen).convert("L").save(tmp_path / "both.png")
    file = str(tmp_path / "both.png")
    size = {"crop": (24, 24), "pad": (40, 40), "stretch": (12, 40)}[fit]
    mask = fitted_mask(read_mask(file, file), size, fit)[0]
    with Image.open(file) as photo:
        shown = Decoder((1, *size), fit).fitted(photo)
    assert torch.equal(mask, shown >= 128)
    assert mask.sum() == {"crop": 12 * 17, "pad": 12 * 17, "stretch": 6 * 17}[fit]


def keys(image, mask):
    return EditKeys(edit="inpaint", image=image, mask=mask, strength=None, resample=1)


@pytest.mark.parametrize(
    ("mask", "told"),
    [
        (Image.new("L", (20, 12)), "marks nothing: white is painted, black and transparent"),
        (Image.new("LA", (20, 12), (255, 0)), "marks nothing"),
        (Image.new("LA", (20, 12), (0, 255)), "marks nothing"),
        (Image.new("L", (20, 12), 127), "marks nothing"),
        (Image.new("L", (20, 13), 255), "is 20×13 pixels, but the image 20×12"),
        (Image.new("F", (20, 12), 1.0), "mask.tif is not a picture that can be read: it holds fl"),
    ],
)
def test_masks_that_cannot_be_used_are_told_before_a_model_is_read(mask, told, photo, tmp_path):
    mask.save(tmp_path / "mask.tif")
    (problem,) = keys(photo, str(tmp_path / "mask.tif")).edit_problems(1, 0)
    assert problem.severity == "error"
    assert problem.key == "mask"
    assert told in problem.message


def test_a_white_mask_paints_everything_with_a_warning(photo, tmp_path):
    Image.new("1", (20, 12), 1).save(tmp_path / "mask.png")
    edit = keys(photo, str(tmp_path / "mask.png"))
    (problem,) = edit.edit_problems(1, 0)
    assert problem.severity == "warning"
    assert "nothing of the image is kept" in problem.message
    made, _ = edit.make_edit(1, PixelCodec((3, 12, 20)), Decoder((3, 12, 20)))
    assert made.mask.all()


def test_a_mask_too_small_to_be_left_at_the_model_s_size_is_told(tmp_path):
    photo = upright_photo(tmp_path / "photo.png", 160, 160)
    dot = Image.new("L", (160, 160))
    dot.paste(255, (40, 40, 46, 46))
    dot.save(tmp_path / "mask.png")
    with pytest.raises(ValueError, match="no pixel is half white"):
        keys(photo, str(tmp_path / "mask.png")).make_edit(
            1, PixelCodec((3, 16, 16)), Decoder((3, 16, 16))
        )


def test_the_size_of_a_turned_photo_is_told_as_it_is_seen(tmp_path):
    photo = upright_photo(tmp_path / "photo.jpg", 12, 20, orientation=6)
    Image.new("L", (21, 12), 255).save(tmp_path / "mask.png")
    (problem,) = keys(photo, str(tmp_path / "mask.png")).edit_problems(1, 0)
    assert "is 21×12 pixels, but the image 12×20 (turned upright" in problem.message


def test_the_photo_is_read_as_the_run_s_data_say(tmp_path):
    deep = Image.fromarray(np.full((8, 8), 4095, np.uint16))
    deep.save(tmp_path / "deep.png")
    edit = EditKeys(
        edit="image_to_image", image=str(tmp_path / "deep.png"), mask=None, strength=0.5,
        resample=None,
    )  # fmt: skip
    codec = PixelCodec((1, 8, 8))
    for said, value in (({}, 15), ({"range": [0, 4095], "fit": "pad"}, 255)):
        _, given = edit.make_edit(1, codec, Decoder.of((1, 8, 8), said))
        assert (given["original"] == value).all()
    with pytest.raises(ValueError, match=r"deep\.png: it has 64 pixels, more than data.most_pix"):
        edit.make_edit(1, codec, Decoder.of((1, 8, 8), {"most_pixels": 63}))
