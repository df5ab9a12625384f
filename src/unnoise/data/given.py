"""Pictures and texts from files that the user names: to be edited, prompts, or to be evaluated."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unnoise.data.decoding import (
    ACROSS,
    MOST_PIXELS,
    Decoder,
    Range,
    TooLarge,
    from_pil,
    placed,
    read,
    turn_of,
)
from unnoise.data.pixels import pad
from unnoise.data.size import Fit
from unnoise.data.walk import say, walk
from unnoise.untrusted import load_arrays

T = TypeVar("T")


def read_pictures(files: Sequence[str], decoder: Decoder) -> Tensor:
    """Each read as the run's data were: uint8 (N, C, H, W); ValueError if one cannot be."""
    return torch.stack([_read(file, decoder.fitted, decoder.most_pixels) for file in files])


def texts_fault(given: Sequence[str] | str) -> str | None:
    """Why ``read_texts`` cannot read them."""
    try:
        read_texts(given)
    except ValueError as error:
        return str(error)
    return None


def read_texts(given: Sequence[str] | str | None) -> list[str] | None:
    """Texts as they are typed: one, a list, or @FILE, which has one a line.

    Raises:
        ValueError: the file is not there, not UTF-8 or empty, or a line is; or a text is the name
            of a file, without the @.
    """
    if given is None or not isinstance(given, str):
        return given if given is None else [*given]
    if not given.startswith("@"):
        if given and Path(given).is_file():
            raise ValueError(f"{given} is a file: @{given} reads a text from each of its lines")
        return [given]
    file = Path(given[1:]).expanduser()
    if not file.is_file():
        raise ValueError(f"there is no file {file}; a text that begins with @ goes into a list")
    content = file.read_bytes()
    try:
        lines = content.decode("utf-8-sig").rstrip().splitlines()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{file} is not UTF-8 (line {line})") from error
    if not lines:
        raise ValueError(f"{file} is empty: it should have a text on each line")
    for number, text in enumerate(lines, 1):
        if not text.strip():
            raise ValueError(f"{file}, line {number} is empty")
    return lines


def check_picture(file: str) -> None:
    """ValueError if a file is no picture; its pixels are not looked at."""
    with suppress(TooLarge):  # the run's data say how large it may be
        _read(file, lambda picture: None)


def read_mask(file: str, photo: str, most_pixels: int = MOST_PIXELS) -> Image.Image:
    """What is to be painted of a photo: "L" of the upright photo's size, 255 or, to be kept, 0.

    Painted is what is at least half white: brightness · opacity ≥ ½. Black and transparent parts
    are kept, so that of white strokes on a transparent layer exactly the strokes are painted. Each
    file is turned upright as its own EXIF data say; a mask without them that has the size of the
    photo before it is turned, and not that after, is turned with it.

    Raises:
        ValueError: a file cannot be read, the sizes differ, or the mask marks nothing.
    """
    mask, own = _read(file, _black_or_white, most_pixels)
    stored, turn = _read(photo, _size_and_turn, most_pixels)
    size = stored[::-1] if turn in ACROSS else stored
    if turn is not None and own is None and mask.size == stored != size:
        mask = mask.transpose(turn)
    if mask.size != size:
        (w, h), (width, height) = mask.size, size
        seen = "" if turn is own is None else " (turned upright, as their EXIF data say)"
        raise ValueError(f"{file} is {w}×{h} pixels, but the image {width}×{height}{seen}")
    if mask.getbbox() is None:
        raise ValueError(
            f"{file} marks nothing: white is painted, black and transparent parts are kept"
        )
    return mask


def fitted_mask(mask: Image.Image, size: Sequence[int], fit: Fit) -> Tensor:
    """A mask of ``read_mask`` fitted as its photo is: bool (1, 1, H, W), True where to paint.

    A pixel is painted if at least half of its area is, so that edges stay where they are.
    """
    height, width = size
    area = np.array(placed(mask, (height, width), fit, Image.Resampling.BOX))
    return pad(torch.from_numpy(area)[None, None], (height, width)) >= 128


def _black_or_white(picture: Image.Image) -> tuple[Image.Image, Image.Transpose | None]:
    """A mask, upright, and how its file is turned."""
    mask = from_pil(picture, 1, ground="black").point([0] * 128 + [255] * 128)
    return mask, turn_of(picture)


def _size_and_turn(picture: Image.Image) -> tuple[tuple[int, int], Image.Transpose | None]:
    """Of a file, before it is turned."""
    picture.load()
    return picture.size, turn_of(picture)


def _read(file: str, use: Callable[[Image.Image], T], most_pixels: int = MOST_PIXELS) -> T:
    """What ``use`` makes of a picture; ValueError names the file if it cannot be read."""
    try:
        return read(file, use, most_pixels)
    except FileNotFoundError as error:
        raise ValueError(f"there is no file {file}") from error
    except IsADirectoryError as error:
        raise ValueError(f"{file} is a folder: name one picture in it") from error
    except TooLarge as error:
        raise TooLarge(f"{file}: {error}") from error
    except Exception as error:  # a damaged file makes Pillow raise nearly anything
        raise ValueError(f"{file} is not a picture that can be read: {error}") from error


def given_pictures(
    path: Path, range: Range | None = None, most_pixels: int = MOST_PIXELS
) -> Tensor:
    """Pictures (N, 1 or 3, H, W) uint8 of a folder of image files, or of an .npz or .npy file.

    ``range`` and ``most_pixels`` are those of a ``Decoder``. An array is (N, H, W, 1 or 3) uint8;
    of an .npz file the first one counts.

    Raises:
        FileNotFoundError: there is nothing there.
        ValueError: a file is damaged, the pictures are not all of one size, or the array is not as
            above.
    """
    if path.is_dir():
        return _folder(path, range, most_pixels)
    array = next(iter(load_arrays(path).values()), np.empty(0))
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[-1] not in (1, 3):
        raise ValueError(
            f"{path} holds {array.dtype} {array.shape}, not pictures: uint8 (N, H, W, 1 or 3)"
        )
    return torch.from_numpy(array).permute(0, 3, 1, 2).contiguous()


def _folder(path: Path, range: Range | None, most_pixels: int) -> Tensor:
    listing = walk(path)
    left_out = listing.left_out()
    if not listing.names:
        why = f" ({left_out})" if left_out else ""
        raise FileNotFoundError(f"there are no pictures in {path}{why}")
    if left_out:
        say(f"{path}: {left_out}")
    files = [listing.path(row) for row, _ in enumerate(listing.names)]
    rows: list[Tensor] = []
    for file in files:
        pixels = _read(file, lambda picture: np.array(from_pil(picture, 3, range)), most_pixels)
        rows.append(torch.from_numpy(pixels).permute(2, 0, 1))
        if rows[-1].shape != rows[0].shape:
            (_, h, w), (_, height, width) = rows[-1].shape, rows[0].shape
            raise ValueError(
                f"{file} has {w} × {h} pixels, {files[0]} has {width} × {height}: "
                "pictures to be scored are all of one size"
            )
    return torch.stack(rows)
