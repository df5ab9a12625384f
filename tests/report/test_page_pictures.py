import base64
import io

import numpy as np
import pytest
from PIL import Image

from unnoise.report.page.samples import FRAMES, WIDE, animation, still


def opened(uri):
    head, _, content = uri.partition(",")
    data = base64.b64decode(content)
    return head, data, Image.open(io.BytesIO(data))


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_a_small_file_stays_as_it_is(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(noise(20, 30)).save(path)
    head, data, _ = opened(still(path))
    assert (head, data) == ("data:image/png;base64", path.read_bytes())


def test_a_large_file_becomes_smaller_and_looks_alike(tmp_path):
    path = tmp_path / "a.png"
    blocks = noise(12, 20).repeat(50, 0).repeat(50, 1).astype(int) + noise(600, 1000) // 16
    Image.fromarray(blocks.clip(0, 255).astype(np.uint8)).save(path)
    head, data, picture = opened(still(path))
    assert head == "data:image/webp;base64"
    assert len(data) < path.stat().st_size / 3
    assert picture.size == (WIDE, WIDE * 600 // 1000)
    small = Image.open(path).resize(picture.size, Image.Resampling.BOX)
    difference = np.asarray(small).astype(int) - np.asarray(picture.convert("RGB"))
    assert np.abs(difference).mean() < 12


def test_a_picture_takes_no_more_room_than_it_is_given(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(noise(640, 640)).save(path)
    sizes = {room: opened(still(path, room)) for room in (100_000, 20_000)}
    assert all(len(data) <= room for room, (_, data, _) in sizes.items())
    assert sizes[100_000][2].width > sizes[20_000][2].width >= 90


def test_a_large_animation_has_fewer_frames_that_last_as_long(tmp_path):
    path = tmp_path / "a.gif"
    blocks = [noise(15, 15, k).repeat(30, 0).repeat(30, 1) for k in range(41)]
    frames = [Image.fromarray(each).quantize(255) for each in blocks]
    times = [50] * 40 + [1000]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=times, loop=0)
    _, _, picture = opened(animation(path, large=1000))
    assert picture.n_frames == FRAMES
    last = Image.open(path)
    last.seek(40)
    lasted = []
    for k in range(FRAMES):
        picture.seek(k)
        picture.load()
        lasted.append(picture.info["duration"])
    assert sum(lasted) == sum(times)
    assert lasted[-1] >= 1000
    assert np.array_equal(np.asarray(picture.convert("RGB")), np.asarray(last.convert("RGB")))


def test_what_is_no_picture_is_an_error(tmp_path):
    (tmp_path / "a.png").write_bytes(b"nothing")
    with pytest.raises(OSError, match="cannot identify"):
        still(tmp_path / "a.png")
