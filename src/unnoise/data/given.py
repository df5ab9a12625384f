"""Pictures from files that the user names: to be edited, to be prompts, or to be evaluated."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unnoise.data.folders import SUFFIXES
from unnoise.data.pixels import fitted, from_pil
from unnoise.data.source import Fit
from unnoise.untrusted import load_arrays

UNREADABLE = (OSError, Image.DecompressionBombError)
"""What Pillow raises of a file that it cannot or will not read."""


def read_pictures(files: Sequence[str], shape: Sequence[int], fit: Fit) -> Tensor:
    """Each fitted as the run's data were: uint8 (N, *shape); ValueError if one is damaged."""
    pictures = []
    for file in files:
        try:
            with Image.open(file) as picture:
                pictures.append(fitted(picture, tuple(shape), fit))
        except UNREADABLE as error:
            raise ValueError(f"{file} cannot be read: {error}") from error
    return torch.stack(pictures)


def picture_size(file: str) -> tuple[int, int]:
    """(width, height) of a picture, which is not read further; ValueError if it is none."""
    try:
        with Image.open(file) as picture:
            return picture.size
    except FileNotFoundError as error:
        raise ValueError(f"there is no file {file}") from error
    except UNREADABLE as error:
        raise ValueError(f"{file} is not a picture that can be read: {error}") from error


def given_pictures(path: Path) -> Tensor:
    """Pictures (N, 1 or 3, H, W) uint8 of a folder of image files, or of an .npz or .npy file.

    An array is (N, H, W, 1 or 3) uint8; of an .npz file the first one counts.

    Raises:
        FileNotFoundError: there is nothing there.
        ValueError: a file is damaged, the pictures are not all of one size, or the array is not as
            above.
    """
    if path.is_dir():
        return _folder(path)
    array = next(iter(load_arrays(path).values()), np.empty(0))
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[-1] not in (1, 3):
        raise ValueError(
            f"{path} holds {array.dtype} {array.shape}, not pictures: uint8 (N, H, W, 1 or 3)"
        )
    return torch.from_numpy(array).permute(0, 3, 1, 2).contiguous()


def _folder(path: Path) -> Tensor:
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
    if not files:
        raise FileNotFoundError(f"there are no pictures in {path}")
    rows: list[Tensor] = []
    for file in files:
        try:
            with Image.open(file) as picture:
                pixels = np.array(from_pil(picture, 3))
        except Exception as error:  # a damaged file makes Pillow raise nearly anything
            raise ValueError(f"{file} is unreadable: {error}") from error
        rows.append(torch.from_numpy(pixels).permute(2, 0, 1))
        if rows[-1].shape != rows[0].shape:
            (_, h, w), (_, height, width) = rows[-1].shape, rows[0].shape
            raise ValueError(
                f"{file} has {w} × {h} pixels, {files[0]} has {width} × {height}: "
                "pictures to be scored are all of one size"
            )
    return torch.stack(rows)
