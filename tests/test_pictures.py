"""Pixel scales are inverse to each other; grids show every picture once, in order."""

import numpy as np
import torch
from PIL import Image

from unnoise.pictures import grid, save_gif, to_pixels, to_signal


def test_all_256_values_survive_the_round_trip():
    values = torch.arange(256, dtype=torch.uint8)
    signal = to_signal(values)
    assert signal.min() == -1
    assert signal.max() == 1
    assert torch.equal(to_pixels(signal), values)


def test_out_of_range_is_clamped_not_wrapped():
    assert to_pixels(torch.tensor([-1.01, 1.004, -50.0, 50.0])).tolist() == [0, 255, 0, 255]


def test_grid_places_pictures_row_by_row_enlarged_by_a_whole_factor():
    images = torch.arange(6, dtype=torch.uint8).view(6, 1, 1, 1).expand(6, 1, 4, 4) * 40
    sheet = np.asarray(grid(images, columns=3, width=100))
    factor = 100 // (3 * 6)
    cell = 4 * factor
    assert sheet.shape == (2 * (cell + 2) + 2, 3 * (cell + 2) + 2)
    for i in range(6):
        top, left = (i // 3) * (cell + 2) + 2, (i % 3) * (cell + 2) + 2
        assert (sheet[top : top + cell, left : left + cell] == 40 * i).all()


def test_gif_has_every_frame(tmp_path):
    frames = [Image.new("RGB", (8, 8), (30 * i, 0, 0)) for i in range(5)]
    save_gif(frames, tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as animation:
        assert animation.n_frames == 5
        assert animation.info["loop"] == 0
