"""Pictures that come from the browser: read as the run's data were, or refused in words."""

import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unnoise.data.decoding import Decoder, read
from unnoise.data.given import read_pictures

Editor = dict[str, Any] | None
"""What gradio's editor gives: "layers" are PIL pictures, transparent where nothing is painted."""
MOST_BYTES = 20_000_000
MOST_PIXELS = 40_000_000
PAD = 288  # pixels of the screen that are drawn on, about
MARKED = 128  # of 255: a pixel is painted where at least half of it is marked
DRAWN = 85  # a line is where at least a third of a pixel is drawn, so that thin ones stay


def fitted(file: str, decoder: Decoder, folder: Path) -> Path:
    """A picture of any format as one of the model's size, written to ``folder``.

    Raises:
        ValueError: it is no picture, damaged, or too large; the message names the file only.
    """
    decoder = replace(decoder, most_pixels=min(decoder.most_pixels, MOST_PIXELS))
    try:
        size = Path(file).stat().st_size
        if size > MOST_BYTES:
            raise ValueError(f"{file} has {size / 1e6:.0f} MB, {MOST_BYTES / 1e6:.0f} at most")
        (pixels,) = read_pictures([file], decoder)
    except ValueError as error:
        words = str(error).replace(file, Path(file).name).partition(", or set data.most_pixels")[0]
        raise ValueError(words) from error
    array = pixels.permute(1, 2, 0).numpy()
    return _saved(Image.fromarray(array[..., 0] if array.shape[2] == 1 else array), folder)


def on_pad(width: int) -> int:
    """Pixels of the screen that a picture is wide where it is drawn on: a whole factor."""
    return width * max(1, PAD // width)


def on_screen(file: Path) -> Image.Image:
    """A picture of the model's size as large as it is drawn on: its pixels are squares."""
    picture = read(file, lambda each: each.convert("RGB"))
    factor = on_pad(picture.width) // picture.width
    return picture.resize((picture.width * factor, picture.height * factor), 0)


def marked(editor: Editor, size: tuple[int, int], folder: Path) -> Path:
    """What was painted on a picture, as a mask of ``size`` (W, H): white where to paint anew.

    Raises:
        ValueError: nothing was, or too little.
    """
    area = _painted(editor, size)
    if area is None:
        raise ValueError("the mask marks nothing: paint with the mouse what is to be drawn anew")
    mask = area.point([0] * MARKED + [255] * (256 - MARKED))
    if mask.getbbox() is None:
        raise ValueError("the mask marks too little: no pixel of the model is half painted")
    return _saved(mask, folder)


def sketched(editor: Editor, size: tuple[int, int], folder: Path) -> Path | None:
    """What was drawn on an empty pad, as black lines on white, of ``size`` (W, H); None if nothing.

    Its edges are the lines themselves, where they are one pixel wide.
    """
    area = _painted(editor, size)
    if area is None:
        return None
    return _saved(area.point([255] * DRAWN + [0] * (256 - DRAWN)), folder)


def _painted(editor: Editor, size: tuple[int, int]) -> Image.Image | None:
    """How much of each pixel is painted, 0 … 255; None if nothing is."""
    layers = [np.asarray(each.convert("RGBA"))[..., 3] for each in (editor or {}).get("layers", ())]
    if not any(layer.any() for layer in layers):
        return None
    return Image.fromarray(np.maximum.reduce(layers)).resize(size, Image.Resampling.BOX)


def _saved(picture: Image.Image, folder: Path) -> Path:
    picture.save(path := folder / f"{uuid.uuid4().hex}.png")
    return path
