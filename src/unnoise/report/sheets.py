"""Grids, tables and animations; pictures are enlarged by whole factors, so pixels stay square."""

import functools
import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from unnoise.models.drawn import Drawn

_GAP, _PAPER, _INK = 2, "white", "black"
_SIZE, _LINE = 13, 16  # of the letters and from line to line, in pixels
_LINES = 6  # of a text, at most
_READABLE = 112  # width of a cell with text below it, at least
_INDENT = 4  # of text from the cell's sides
_MARGIN = 10
Draw = ImageDraw.ImageDraw
_COMPARED = 8  # drawn pictures beside those given


def grid(
    images: Tensor,
    columns: int | None = None,
    width: int = 640,
    captions: Sequence[str] | None = None,
) -> Image.Image:
    """Images (N, C, H, W) uint8 in rows, near-square where ``columns`` is None.

    Small images are enlarged, to a sheet of about ``width`` pixels. ``captions``, one for each
    image, stand below the images, which are then wide enough for words.
    """
    n, _, height, w = images.shape
    columns = columns or math.ceil(math.sqrt(n * height / w))
    least = 1 if captions is None else -(-_READABLE // w)
    factor = max(least, width // (columns * (w + _GAP)))
    pixels = images.permute(0, 2, 3, 1).cpu().numpy().repeat(factor, 1).repeat(factor, 2)
    pictures = [Image.fromarray(each[..., 0] if each.shape[-1] == 1 else each) for each in pixels]
    w, height = w * factor, height * factor
    texts = [] if captions is None else [_wrapped(caption, w - 2 * _INDENT) for caption in captions]
    rows = range(0, n, columns)
    below = [_height(texts[start : start + columns]) for start in rows]
    size = (columns * (w + _GAP) + _GAP, sum(height + _GAP + each for each in below) + _GAP)
    sheet = Image.new(pictures[0].mode, size, _PAPER)
    draw, top = ImageDraw.Draw(sheet), _GAP
    for start, room in zip(rows, below, strict=True):
        for i in range(start, min(start + columns, n)):
            left = (i - start) * (w + _GAP) + _GAP
            sheet.paste(pictures[i], (left, top))
            if texts:
                _centre(draw, texts[i], left + w // 2, top + height)
        top += height + _GAP + room
    return sheet


def table(
    cells: Sequence[Sequence[Image.Image]],
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
    note: str,
) -> Image.Image:
    """Cells in ``rows`` and ``columns`` with these names, below a title and a note.

    A column is as wide as its first cell, a row as high as its highest cell. ``columns`` may be
    empty.
    """
    widths = [cell.width for cell in cells[0]]
    names = [_wrapped(name, 150) for name in rows]
    heads = [_wrapped(name, width) for name, width in zip(columns, widths, strict=False)]
    first = 2 * _MARGIN + max((_width(line) for lines in names for line in lines), default=0)
    lefts = [first, *(first + right for right in accumulate(width + _MARGIN for width in widths))]
    notes = _wrapped(note, lefts[-1] - 2 * _MARGIN)
    above = 3 * _MARGIN + _LINE + _height([notes])
    heights = [
        max(_height([lines]), *(cell.height for cell in row)) + _MARGIN
        for lines, row in zip(names, cells, strict=True)
    ]
    tops = list(accumulate(heights, initial=above + _height(heads)))
    sheet = Image.new("RGB", (lefts[-1], tops[-1]), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, _MARGIN), title, fill=_INK, font=_font(_SIZE + 3))
    _write(draw, notes, _MARGIN, 2 * _MARGIN + _LINE, ink="dimgrey")
    for lines, left, width in zip(heads, lefts, widths, strict=False):
        _centre(draw, lines, left + width // 2, above)
    for lines, row, top, height in zip(names, cells, tops, heights, strict=False):
        middle = top + (height - _MARGIN - len(lines) * _LINE) // 2
        _write(draw, lines, _MARGIN, middle)
        for cell, left in zip(row, lefts, strict=False):
            sheet.paste(cell, (left, top))
    return sheet


def stacked(sheets: Sequence[Image.Image]) -> Image.Image:
    """Sheets one below the other, aligned left, on white."""
    tops = list(accumulate((sheet.height for sheet in sheets), initial=0))
    whole = Image.new("RGB", (max(sheet.width for sheet in sheets), tops[-1]), _PAPER)
    for sheet, top in zip(sheets, tops, strict=False):
        whole.paste(sheet, (0, top))
    return whole


def beside(*pictures: Tensor) -> Tensor:
    """Pictures (N, 1 or C, H, W) in a row, with a white column at the right: (N, C, H, k·W + 1)."""
    n, _, height, _ = pictures[0].shape
    channels = max(each.shape[1] for each in pictures)
    white = pictures[-1].new_full((n, channels, height, 1), 255)
    row = [each.expand(-1, channels, -1, -1) for each in pictures]
    return torch.cat((*row, white), dim=3)


def save_gif(frames: Sequence[Image.Image], path: Path, seconds: float = 4.0) -> None:
    """Save an endless animation of ``seconds``; the last frame stays a quarter longer."""
    each = max(20, int(1000 * seconds / len(frames)))
    durations = [each] * (len(frames) - 1) + [each + int(250 * seconds)]
    first, *rest = [frame.convert("P", palette=Image.Palette.ADAPTIVE) for frame in frames]
    first.save(path, "GIF", save_all=True, append_images=rest, duration=durations, loop=0)


# Text


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which has Greek letters and accents; matplotlib brings it."""
    import matplotlib

    return ImageFont.truetype(
        Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size
    )


def _width(text: str) -> int:
    return math.ceil(_font(_SIZE).getlength(text))


def _wrapped(text: str, width: int) -> list[str]:
    """Lines of at most ``width`` pixels, broken between words, or within very long words."""
    lines = [""]
    for word in text.split():
        line = f"{lines[-1]} {word}".strip()
        if _width(line) <= width:
            lines[-1] = line
            continue
        lines += [""] if lines[-1] else []
        for letter in word:
            lines += [""] if _width(lines[-1] + letter) > width else []
            lines[-1] += letter
    if len(lines) > _LINES:
        last = lines[_LINES - 1]
        while last and _width(f"{last} …") > width:
            last = last[:-1]
        lines = [*lines[: _LINES - 1], f"{last} …"]
    return lines if lines[0] else []


def _height(texts: Sequence[list[str]]) -> int:
    """The height of texts side by side, with a margin below."""
    lines = max((len(lines) for lines in texts), default=0)
    return lines * _LINE + 6 if lines else 0


def _write(draw: Draw, lines: list[str], left: int, top: int, ink: str = _INK) -> None:
    for number, line in enumerate(lines):
        draw.text((left, top + number * _LINE), line, fill=ink, font=_font(_SIZE))


def _centre(draw: Draw, lines: list[str], middle: int, top: int) -> None:
    for number, line in enumerate(lines):
        _write(draw, [line], middle - _width(line) // 2, top + 2 + number * _LINE)


def sheet(drawn: Drawn, columns: int | None = None) -> Image.Image:
    """Drawn pictures with their prompts: text below, pictures to the left, differences right."""
    row = [each for each in (drawn.prompts, drawn.pixels, drawn.difference) if each is not None]
    pixels = drawn.pixels if len(row) == 1 else beside(*row)
    return grid(pixels, columns, captions=drawn.captions)


def comparison(given: Mapping[str, Tensor], drawn: Drawn) -> Image.Image:
    """Given pictures by name, uint8 (1, C, H, W), before those drawn; "second" stands last.

    Between two all drawn pictures are shown, else the first eight.
    """
    last = {name: picture for name, picture in given.items() if name == "second"}
    before = {name: picture for name, picture in given.items() if name not in last}
    pixels = drawn.pixels if last else drawn.pixels[:_COMPARED]
    words = ["drawn"] * len(pixels) if drawn.captions is None else drawn.captions[: len(pixels)]
    cells = torch.cat([*before.values(), pixels, *last.values()])
    columns = min(len(cells), _COMPARED + len(given))
    return grid(cells, columns, captions=[*before, *words, *last])
