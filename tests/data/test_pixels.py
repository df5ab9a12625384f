import numpy as np
import pytest
import torch
from PIL import Image

from unnoise.data.decoding import fitted, from_pil
from unnoise.data.memory import TensorImages
from unnoise.data.pixels import check_multiple, enlarge, narrow, pad, resize, to_channels


def some_images(n: int = 4, channels: int = 3, size: int = 8, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (n, channels, size, size)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def test_read_gives_the_rows_asked_for_in_their_order():
    images = some_images()
    read = TensorImages(images, torch.arange(4)).read(torch.tensor([2, 0, 2]))
    assert torch.equal(read, images[[2, 0, 2]])


def test_fingerprint_tells_every_difference_and_only_differences():
    images, labels, captions = some_images(), torch.arange(4), ["a", "b", "c", "d"]
    pixel, label = images.clone(), labels.clone()
    pixel[3, 2, 7, 7] ^= 1
    label[0] = 1
    same = TensorImages(images.clone(), labels.clone(), list(captions)).fingerprint
    assert same == TensorImages(images, labels, captions).fingerprint
    others = {
        TensorImages(pixel, labels, captions).fingerprint,
        TensorImages(images, label, captions).fingerprint,
        TensorImages(images, labels, ["a", "b", "c", "e"]).fingerprint,
        TensorImages(images, labels, ["ab", "", "c", "d"]).fingerprint,
        TensorImages(images, labels).fingerprint,
        TensorImages(images.reshape(4, 3, 4, 16), labels, captions).fingerprint,
        same,
    }
    assert len(others) == 7
    assert len(same) == 64


def test_fingerprint_does_not_depend_on_memory_layout():
    images = some_images()
    strided = images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    a, b = TensorImages(images, torch.arange(4)), TensorImages(strided, torch.arange(4))
    assert a.fingerprint == b.fingerprint


@pytest.mark.parametrize(
    ("images", "labels", "captions", "message"),
    [
        (some_images().float(), torch.arange(4), None, "uint8"),
        (some_images()[0], torch.arange(3), None, "N, C, H, W"),
        (some_images(), torch.arange(3), None, r"labels must be int64 \(4,\)"),
        (some_images(), torch.arange(4).int(), None, "int64"),
        (some_images(), torch.arange(4), ["a"], "1 captions for 4 images"),
    ],
)
def test_wrong_parts_are_named(images, labels, captions, message):
    with pytest.raises(ValueError, match=message):
        TensorImages(images, labels, captions)


@pytest.mark.parametrize("size", [8, 9, 12, 15])
def test_pad_centres_on_black(size):
    images = some_images() | 1
    padded = pad(images, (size, size))
    margin = (size - 8) // 2
    assert padded.shape == (4, 3, size, size)
    assert torch.equal(padded[:, :, margin : margin + 8, margin : margin + 8], images)
    assert (padded > 0).sum() == images.numel()


def test_pad_refuses_to_crop():
    with pytest.raises(ValueError, match="8×8 pixels do not fit into 7×7"):
        pad(some_images(), (7, 7))


def test_resize_is_antialiased():
    stripes = torch.zeros(1, 1, 32, 32, dtype=torch.uint8)
    stripes[..., 1::4] = stripes[..., 2::4] = 255
    small = resize(stripes, (8, 8))
    assert small.shape == (1, 1, 8, 8)
    assert (small[..., 1:-1].float() - 127.5).abs().max() <= 2  # without: all 255


def test_resize_keeps_flat_images_and_the_size_it_has():
    flat = torch.full((2, 3, 8, 8), 200, dtype=torch.uint8)
    assert torch.equal(resize(flat, (12, 12)), torch.full((2, 3, 12, 12), 200, dtype=torch.uint8))
    images = some_images()
    assert torch.equal(resize(images, (8, 8)), images)


def test_enlarge_makes_each_pixel_a_square():
    images = some_images()
    large = enlarge(images, (24, 24))
    for dy in range(3):
        for dx in range(3):
            assert torch.equal(large[..., dy::3, dx::3], images)


@pytest.mark.parametrize("size", [4, 12])
def test_enlarge_takes_whole_multiples_only(size):
    with pytest.raises(ValueError, match=f"image_size {size} is not a multiple of the sprites' 8"):
        check_multiple(size, 8, "the sprites'")


def test_channels_there_and_back():
    grey = some_images(channels=1)
    colour = to_channels(grey, 3)
    assert torch.equal(colour, grey.expand(4, 3, 8, 8))
    assert torch.equal(to_channels(colour, 1), grey)
    assert torch.equal(to_channels(colour, 3), colour)


def test_luma_is_that_of_bt601():
    images = some_images(n=8)
    weights = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    exact = (images * weights).sum(1, keepdim=True)
    assert (to_channels(images, 1) - exact).abs().max() <= 0.501


def test_crop_takes_the_centre_of_either_orientation():
    stripes = np.zeros((10, 30, 3), dtype=np.uint8)
    stripes[:, :10, 0] = stripes[:, 10:20, 1] = stripes[:, 20:, 2] = 255
    green = torch.tensor([0, 255, 0], dtype=torch.uint8).view(3, 1, 1).expand(3, 10, 10)
    assert torch.equal(fitted(Image.fromarray(stripes), (3, 10, 10)), green)
    assert torch.equal(
        fitted(Image.fromarray(stripes.transpose(1, 0, 2).copy()), (3, 10, 10)), green
    )


def test_fitted_leaves_pixels_of_the_right_size_alone():
    pixels = some_images(n=1)[0]
    picture = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    assert torch.equal(fitted(picture, (3, 8, 8)), pixels)
    assert torch.equal(
        fitted(picture.convert("L"), (1, 8, 8))[0], torch.tensor(np.array(picture.convert("L")))
    )


def test_fitted_is_antialiased():
    stripes = np.zeros((64, 64), dtype=np.uint8)
    stripes[:, 1::4] = stripes[:, 2::4] = 255
    small = fitted(Image.fromarray(stripes), (1, 16, 16))
    assert (small[..., 2:-2].float() - 127.5).abs().max() <= 3


def test_transparency_becomes_white():
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    half = Image.new("RGBA", (4, 4), (0, 0, 0, 128))
    assert (fitted(clear, (3, 4, 4)) == 255).all()
    assert (fitted(half, (1, 4, 4)) == 127).all()


def test_sixteen_bit_grey_is_scaled_not_clipped():
    deep = Image.fromarray(np.full((4, 4), 128 * 256 + 7, dtype=np.uint16))
    assert (fitted(deep, (1, 4, 4)) == 128).all()


def test_pictures_are_turned_upright():
    picture = Image.new("RGB", (8, 4), "black")
    picture.paste("white", (0, 0, 4, 4))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90° clockwise
    picture.info["exif"] = exif.tobytes()
    upright = from_pil(picture, 1)
    assert upright.size == (4, 8)
    assert np.asarray(upright)[:4].min() == 255
    assert np.asarray(upright)[4:].max() == 0


@pytest.mark.parametrize(("highest", "told"), [(15, True), (31, True), (32, False), (255, False)])
def test_a_split_that_uses_less_than_an_eighth_of_the_range_is_told(highest, told):
    pixels = torch.zeros(100, 1, 4, 4, dtype=torch.uint8)
    pixels[:, 0, 0, 0] = highest
    line = narrow(TensorImages(pixels, torch.zeros(100, dtype=torch.int64)))
    assert (line is not None) == told
    if line is not None:
        assert f"64 pictures looked at have only the values 0 … {highest} of 0 … 255" in line
