"""Any mode and depth of file becomes the 8-bit pixels that it means, or is refused in words."""

import io

import numpy as np
import PIL
import pytest
import torch
from broken import (
    JPEG_SEGMENTS,
    OUTSIDE,
    PIXELS,
    PNG_CHUNKS,
    chunk,
    exif,
    jpeg,
    png,
    segment,
    tiff,
    webp,
)
from PIL import Image

from unnoise.data.decoding import Decoder, fitted, from_pil, upright
from unnoise.data.folders import ImageFolder

RAMP = np.arange(64).reshape(8, 8)  # 0 … 63
GREY = Decoder((1, 8, 8))


def as_file(picture: Image.Image, form: str, **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


def grey(file: bytes, **keys) -> np.ndarray:
    return Decoder((1, 8, 8), **keys)(file)[0].numpy()


SIXTEEN = (RAMP * 1040).astype(np.uint16)  # 0 … 65520


@pytest.mark.parametrize(
    "file",
    [
        png(SIXTEEN),
        tiff(SIXTEEN),
        as_file(Image.frombytes("I;16B", (8, 8), SIXTEEN.astype(">u2").tobytes()), "TIFF"),
        b"P5 8 8 65535\n" + SIXTEEN.astype(">u2").tobytes(),
    ],
    ids=["png", "tiff", "big-endian tiff", "pgm"],
)
def test_sixteen_bits_are_read_by_their_upper_eight(file):
    assert np.array_equal(grey(file), SIXTEEN >> 8)


@pytest.mark.parametrize(
    ("file", "range"),
    [
        (png((RAMP * 65).astype(np.uint16)), (0, 4095)),
        (tiff((RAMP * 65).astype(np.uint16)), [0, 4095]),
        (tiff((RAMP * 65 - 1024).astype(np.int16), sample=2), (-1024, 3071)),
        (tiff((RAMP * 1000).astype(np.int32), sample=2), (0, 63000)),
        (tiff((RAMP * 60_000_000).astype(np.uint32)), (0, 63 * 60_000_000)),
        (tiff((RAMP / 63).astype(np.float32), sample=3), (0, 1)),
        (tiff((RAMP / 63 * 2 - 1).astype(np.float32), sample=3), (-1, 1)),
        (tiff((63 - RAMP).astype(np.uint16), photometric=0), (0, 63)),
    ],
    ids=["12 bits", "tiff", "signed", "int32", "uint32", "float", "around 0", "white is 0"],
)
def test_a_declared_range_is_black_to_white(file, range):
    assert np.abs(grey(file, range=range) - RAMP * 255 / 63).max() <= 0.5


def test_a_declared_range_clips_and_is_not_for_eight_bits():
    deep = png((RAMP * 100).astype(np.uint16))
    assert (grey(deep, range=(1000, 2000)) == (RAMP * 25.5 - 255).clip(0, 255).round()).all()
    shallow = as_file(Image.fromarray((RAMP * 4).astype(np.uint8)), "PNG")
    assert np.array_equal(grey(shallow, range=(0, 4095)), RAMP * 4)


@pytest.mark.parametrize("range", [(1, 0), (0, 0), (0, float("inf")), (float("nan"), 1)])
def test_a_range_rises(range):
    with pytest.raises(ValueError, match="black < white"):
        Decoder((1, 8, 8), range=range)


NUMBERS = (RAMP / 63).astype(np.float32)


@pytest.mark.parametrize(
    ("file", "range", "message"),
    [
        (tiff(NUMBERS, 3), None, r"float values \(0 … 1\).*as in data.range=\[0,1\]"),
        (tiff(RAMP.astype(np.int32), 2), None, r"32-bit or signed values \(0 … 63\)"),
        (tiff(RAMP.astype(np.int16), 2), None, "32-bit or signed"),
        (tiff(np.where(RAMP == 9, np.nan, NUMBERS), 3), (0, 1), "NaN or infinity"),
        (tiff(np.where(RAMP == 9, np.inf, NUMBERS), 3), (0, 1), "NaN or infinity"),
        (tiff(RAMP.astype(np.int8), 2), None, "signed 8-bit"),
        (png(np.stack([SIXTEEN] * 3, -1)), (0, 4095), "16 bits a channel"),
    ],
)
def test_values_without_a_meaning_are_refused(file, range, message):
    with pytest.raises(ValueError, match=message):
        grey(file, range=range)


def test_sixteen_bit_colour_is_read_by_its_upper_eight():
    colours = np.stack([SIXTEEN, SIXTEEN // 2, SIXTEEN // 4], -1)
    read = Decoder((3, 8, 8))(png(colours)).permute(1, 2, 0).numpy()
    assert np.array_equal(read, colours >> 8)
    half = np.concatenate([colours, np.full((8, 8, 1), 65535, np.uint16)], -1)
    assert np.array_equal(Decoder((3, 8, 8))(png(half)).permute(1, 2, 0).numpy(), colours >> 8)


def test_a_grey_that_means_transparent_is_white_at_any_depth():
    for values, depth in ((SIXTEEN, 8), ((RAMP * 4).astype(np.uint8), 0)):
        clear = chunk(b"tRNS", int(values[3, 3]).to_bytes(2))
        expected = values >> depth
        expected[3, 3] = 255
        assert np.array_equal(grey(png(values, clear)), expected)


RED = (200, 40, 90)
OWN_TIFF = pytest.mark.skipif(
    int(PIL.__version__.partition(".")[0]) < 13,
    reason="Pillow before 13 finds the YCbCr TIFF truncated that it wrote",
)


@pytest.mark.parametrize(
    ("mode", "colour", "form", "expected"),
    [
        ("1", 1, "PNG", (255, 255, 255)),
        ("L", 77, "PNG", (77, 77, 77)),
        ("LA", (77, 0), "PNG", (255, 255, 255)),
        ("LA", (77, 255), "PNG", (77, 77, 77)),
        ("RGB", RED, "PNG", RED),
        ("RGBA", (*RED, 255), "PNG", RED),
        ("RGBA", (*RED, 0), "WEBP", (255, 255, 255)),
        ("CMYK", (55, 215, 165, 0), "TIFF", RED),
        pytest.param("YCbCr", (93, 126, 204), "TIFF", RED, marks=OWN_TIFF),
        ("LAB", (255, 128, 128), "TIFF", (255, 255, 255)),
    ],
)
def test_modes_become_the_colours_they_mean(mode, colour, form, expected):
    file = as_file(Image.new(mode, (8, 8), colour), form)
    assert Image.open(io.BytesIO(file)).mode in (mode, "RGBA")
    read = Decoder((3, 8, 8))(file)
    assert (read - torch.tensor(expected).view(3, 1, 1)).abs().max() <= 2


@pytest.mark.parametrize("form", ["PNG", "GIF"])
def test_palettes_are_looked_up_and_may_be_transparent(form):
    picture = Image.new("P", (8, 8), 1)
    picture.putpalette([0, 0, 0, *RED])
    picture.paste(0, (0, 0, 8, 4))
    read = Decoder((3, 8, 8))(as_file(picture, form, transparency=0))
    assert (read[:, :4] == 255).all()
    assert torch.equal(read[:, 4:], torch.tensor(RED).view(3, 1, 1).expand(3, 4, 8).byte())
    both = fitted(picture.convert("PA"), (3, 8, 8))
    assert (both[:, 4:, 0] == torch.tensor(RED).view(3, 1)).all()


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_several_pictures_the_first_is_read(form):
    first, second = (Image.new("L", (8, 8), colour) for colour in (0, 255))
    file = as_file(first, form, save_all=True, append_images=[second])
    assert Image.open(io.BytesIO(file)).n_frames == 2
    assert not grey(file).any()


BROKEN_PNG = {name: png(PIXELS, *chunks) for name, chunks in PNG_CHUNKS.items()} | {
    f"{name} at the end": png(PIXELS, behind=chunks[0])
    for name, chunks in PNG_CHUNKS.items()
    if "animation" not in name
}
SHAPE = (3, *PIXELS.shape[:2])


@pytest.mark.parametrize("file", BROKEN_PNG.values(), ids=BROKEN_PNG)
@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_a_png_is_its_pixels_whatever_else_is_broken(file):
    assert np.array_equal(Decoder(SHAPE)(file), PIXELS.transpose(2, 0, 1))


@pytest.mark.parametrize("broken", JPEG_SEGMENTS.values(), ids=JPEG_SEGMENTS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_jpeg_is_its_pixels_whatever_else_is_broken(broken):
    assert torch.equal(Decoder(SHAPE)(jpeg(broken)), Decoder(SHAPE)(jpeg()))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_webp_is_its_pixels_whatever_else_is_broken():
    assert np.array_equal(Decoder(SHAPE)(webp()), PIXELS.transpose(2, 0, 1))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_is_sound_of_broken_metadata_still_turns_the_picture():
    turned = (3, *PIXELS.shape[1::-1])
    expected = np.rot90(PIXELS, -1).transpose(2, 0, 1)
    for file in (
        png(PIXELS, chunk(b"eXIf", exif(6, OUTSIDE))),
        png(PIXELS, chunk(b"eXIf", exif(6)), chunk(b"zTXt", b"a\0\5")),
        png(PIXELS, chunk(b"zTXt", b"a\0\5"), behind=chunk(b"eXIf", exif(6))),
    ):
        assert np.array_equal(Decoder(turned)(file), expected)
    mark = segment(0xE1, b"Exif\0\0" + exif(6, OUTSIDE))
    upside = Decoder(SHAPE)(jpeg()).rot90(-1, (1, 2))
    for file in (jpeg(mark), jpeg(mark, JPEG_SEGMENTS["short profile"])):
        assert torch.equal(Decoder(turned)(file), upside)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_as_pillow_turns_it(orientation):
    from PIL import ImageOps

    with Image.open(io.BytesIO(png(PIXELS, chunk(b"eXIf", exif(orientation))))) as picture:
        expected = np.asarray(ImageOps.exif_transpose(picture))
        assert np.array_equal(np.asarray(upright(picture)), expected)


def test_damaged_pixels_are_damage():
    for file in (png(PIXELS)[:-30], jpeg()[:-60], b"no picture", b"", b"\x89PNG\r\n\x1a\n"):
        with pytest.raises(Exception, match=r".+"):
            Decoder(SHAPE)(file)


def test_the_name_does_not_say_the_format(tmp_path):
    for name, file in (("a.png", jpeg()), ("b.jpg", png(PIXELS)), ("c.gif", webp())):
        (tmp_path / name).write_bytes(file)
    source = ImageFolder(str(tmp_path), (6, 10), validation_share=0.001)
    pixels = source.images("train").read(torch.arange(3))
    assert np.array_equal(pixels[1], PIXELS.transpose(2, 0, 1))


def test_larger_pictures_than_allowed_say_the_way_out():
    file = png(np.zeros((30, 40), np.uint8))
    with pytest.raises(
        ValueError, match=r"it has 1,200 pixels, more than data.most_pixels \(1,199"
    ):
        grey(file, most_pixels=1199)
    with pytest.raises(ValueError, match=r"set data.most_pixels=1200"):
        grey(file, most_pixels=1199)
    assert not grey(file, most_pixels=1200).any()


def test_pillow_s_own_guard_gives_way_to_the_key(monkeypatch):
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 100)
    monkeypatch.setattr("unnoise.data.decoding.MOST_PIXELS", 200)
    file = png(np.zeros((30, 40), np.uint8))
    with pytest.raises(ValueError, match=r"1,200 pixels.*data.most_pixels=1200"):
        grey(file, most_pixels=200)
    assert not grey(file, most_pixels=1200).any()


def test_how_pictures_are_decoded_is_in_the_fingerprint_and_the_limit_is_not(tmp_path):
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(png(SIXTEEN + np.uint16(number)))

    def fingerprint(**keys) -> str:
        return (
            ImageFolder(str(tmp_path), 8, validation_share=0.001, **keys)
            .images("train")
            .fingerprint
        )

    plain = fingerprint()
    assert fingerprint(most_pixels=64) == plain
    assert fingerprint(range=(0, 4095)) not in (plain, fingerprint(range=(0, 4094)))
    assert fingerprint(range=[0, 4095]) == fingerprint(range=(0.0, 4095.0))


def test_a_folder_names_the_file_that_has_no_range(tmp_path):
    (tmp_path / "a.png").write_bytes(tiff(NUMBERS, 3))
    images = ImageFolder(str(tmp_path), 8, validation_share=0.001).images("train")
    with pytest.raises(ValueError, match=r"a\.png, is unreadable: it holds float values"):
        images.read(torch.tensor([0]))
    images = ImageFolder(str(tmp_path), 8, channels=1, validation_share=0.001, range=(0, 1))
    assert images.images("train").read(torch.tensor([0])).max() == 255


def test_on_black_what_is_transparent_is_black():
    assert not np.asarray(from_pil(Image.new("LA", (2, 2), (255, 0)), 1, ground="black")).any()
