"""Pictures: the two scales of their pixels, and grids and animations for people to look at."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

_GAP, _PAPER = 2, 255


def to_signal(image: Tensor) -> Tensor:
    """Pixels uint8 0 … 255 to float32 −1 … 1."""
    return image.float() / 127.5 - 1


def to_pixels(x: Tensor) -> Tensor:
    """Float −1 … 1 to uint8 0 … 255, clamped and rounded to the nearest."""
    return ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def grid(images: Tensor, columns: int | None = None, width: int = 640) -> Image.Image:
    """Images (N, C, H, W) uint8 in rows, near-square where ``columns`` is None.

    Small images are enlarged by whole factors, pixels kept square, to about ``width`` pixels.
    """
    n, channels, height, w = images.shape
    columns = columns or math.ceil(math.sqrt(n * height / w))
    rows = -(-n // columns)
    factor = max(1, width // (columns * (w + _GAP)))
    cells = images.permute(0, 2, 3, 1).cpu().numpy().repeat(factor, 1).repeat(factor, 2)
    h, w = cells.shape[1:3]
    sheet = np.full(
        (rows * (h + _GAP) + _GAP, columns * (w + _GAP) + _GAP, channels), _PAPER, np.uint8
    )
    for i, cell in enumerate(cells):
        top, left = (i // columns) * (h + _GAP) + _GAP, (i % columns) * (w + _GAP) + _GAP
        sheet[top : top + h, left : left + w] = cell
    return Image.fromarray(sheet[..., 0] if channels == 1 else sheet)


def save_gif(frames: Sequence[Image.Image], path: Path, seconds: float = 4.0) -> None:
    """Frames as an endless animation; the last stays for another quarter of the time."""
    each = max(20, int(1000 * seconds / len(frames)))
    durations = [each] * (len(frames) - 1) + [each + int(250 * seconds)]
    first, *rest = [frame.convert("P", palette=Image.Palette.ADAPTIVE) for frame in frames]
    first.save(path, save_all=True, append_images=rest, duration=durations, loop=0)
