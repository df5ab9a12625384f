"""Pixel scales are inverse to each other; grids show every picture once, and text has room."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

from unnoise.data.pixels import to_pixels, to_signal
from unnoise.models.drawn import Drawn
from unnoise.report.sheets import beside, grid, save_gif, sheet, stacked, table

WORDS = [
    "a dog",
    "an orange knight with a gold sword facing left",
    "",
    "Donaudampfschiffahrt " * 20,
]


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


def reds(n, height=16, width=16):
    """Pictures n of one colour that no text has."""
    return torch.tensor([255, 0, 0], dtype=torch.uint8).view(1, 3, 1, 1).expand(n, 3, height, width)


def blocks(sheet):
    """Rows and columns of a sheet in which something is red, as spans (first, last + 1)."""
    red = (np.asarray(sheet) == [255, 0, 0]).all(-1)
    return [spans(red.any(1)), spans(red.any(0))], red


def spans(flags):
    edges = np.flatnonzero(np.diff(np.pad(flags.astype(int), 1)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


@pytest.mark.parametrize("shape", [(16, 16), (28, 28), (5, 9), (256, 256)])
def test_captions_leave_every_picture_whole_and_stay_below_it(shape):
    sheet = grid(reds(8, *shape), columns=4, captions=[*WORDS, *WORDS])
    (rows, columns), red = blocks(sheet)
    factor = (rows[0][1] - rows[0][0]) // shape[0]
    assert len(rows) == 2
    assert len(columns) == 4
    assert all(b - a == factor * shape[0] for a, b in rows)
    assert all(b - a == factor * shape[1] >= 112 for a, b in columns)
    assert red.sum() == 8 * shape[0] * shape[1] * factor**2
    ink = ((np.asarray(sheet) < 128).all(-1)) & ~red
    assert not any(ink[:, a:b].any() for a, b in [(0, columns[0][0])]), "left of the first"
    for (_, right), (left, _) in pairwise(columns):
        assert not ink[:, right:left].any(), "text keeps within its column"
    for top, bottom in rows:
        assert not ink[top:bottom].any(), "text does not touch pictures"
    assert ink[rows[0][1] : rows[1][0]].any()
    assert not ink[:, columns[2][0] : columns[2][1]].any(), "no words, no ink"


def test_captions_take_the_lines_they_need_and_six_at_most():
    plain = grid(reds(1), width=112, captions=[""]).height
    heights = [grid(reds(1), width=112, captions=["word " * n]).height for n in (1, 2, 6, 1000)]
    assert [height - plain - 6 for height in heights] == [16, 16, 3 * 16, 6 * 16]


def test_grey_pictures_take_captions_too():
    sheet = grid(torch.zeros(2, 1, 28, 28, dtype=torch.uint8), captions=["eins", "zwei"])
    assert sheet.mode == "L"
    assert sheet.width >= 2 * 112


def test_table_puts_each_cell_whole_under_its_head_beside_its_name():
    cells = [[grid(reds(1), width=40) for _ in range(3)] for _ in range(2)]
    sheet = table(cells, ["ddpm", "a name as long as this one is"], ["5", "10", "1000"], "T", "n")
    (rows, columns), red = blocks(sheet)
    assert len(rows) == 2
    assert len(columns) == 3
    assert red.sum() == 6 * (2 * 16) ** 2
    ink = (np.asarray(sheet) < 100).all(-1)
    assert ink[: rows[0][0]].any(), "heads"
    assert ink[:, : columns[0][0]][rows[1][0] - 8 :].any(), "names"
    assert not ink[:, columns[0][0] :][rows[0][0] :].any()


def test_cells_of_a_table_may_differ_in_size():
    small, large = (grid(reds(1), width=w) for w in (20, 80))
    sheet = table([[large, small], [small, small]], ["a", "b"], [], "title", "")
    (rows, columns), _ = blocks(sheet)
    assert [b - a for a, b in rows] == [64, 16]
    assert [b - a for a, b in columns] == [64, 16]


def test_stacked_sheets_keep_their_pixels():
    first, second = Image.new("RGB", (9, 4), "red"), Image.new("L", (5, 3), 7)
    whole = np.asarray(stacked([first, second]))
    assert whole.shape == (7, 9, 3)
    assert (whole[:4] == [255, 0, 0]).all()
    assert (whole[4:, :5] == 7).all()
    assert (whole[4:, 5:] == 255).all()


@pytest.mark.parametrize(("first", "second"), [(1, 3), (3, 3), (3, 1), (1, 1)])
def test_pairs_hold_both_pictures(first, second):
    a = torch.full((2, first, 4, 4), 10, dtype=torch.uint8)
    b = torch.full((2, second, 4, 4), 20, dtype=torch.uint8)
    pair = beside(a, b)
    assert pair.shape == (2, max(first, second), 4, 9)
    assert (pair[..., :4] == 10).all()
    assert (pair[..., 4:8] == 20).all()
    assert (pair[..., 8] == 255).all()


def test_gif_has_every_frame(tmp_path):
    frames = [Image.new("RGB", (8, 8), (30 * i, 0, 0)) for i in range(5)]
    save_gif(frames, tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as animation:
        assert animation.n_frames == 5
        assert animation.info["loop"] == 0


def test_a_sheet_has_the_prompts_below_and_to_the_left_of_each_picture():
    pixels = reds(3)
    names = ["cat", "dog", "cat"]
    assert np.array_equal(sheet(Drawn(pixels)), grid(pixels))
    assert np.array_equal(sheet(Drawn(pixels, names), 2), grid(pixels, 2, captions=names))
    views = torch.full((3, 1, 16, 16), 90, dtype=torch.uint8)
    expected = grid(beside(views, pixels), captions=names)
    assert np.array_equal(sheet(Drawn(pixels, names, views)), expected)
