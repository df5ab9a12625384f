"""Pictures as data URIs, which are part of the page."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

WIDE, NARROW = 720, 90
"""Largest and approximately smallest width, in pixels, of a picture that is compressed again."""
FRAMES = 16
"""Most frames of an animation."""


def still(path: Path, large: int = 250_000) -> str:
    """A picture as a data URI; a file of more than ``large`` bytes is compressed with loss.

    Its width is halved until it takes no more than ``large`` bytes.

    Raises:
        OSError: the file is missing, or is not a picture.
        DecompressionBombError: the picture has too many pixels.
    """
    with Image.open(path) as picture:
        picture.load()
        if path.stat().st_size <= large and picture.format == "PNG":
            return _uri("png", path.read_bytes())
        width = WIDE
        while True:
            content = _webp([_narrow(picture, width)], [0], quality=85)
            if len(content) <= large or width <= NARROW:
                return _uri("webp", content)
            width //= 2


def animation(path: Path, large: int = 500_000) -> str:
    """A GIF as a data URI; above ``large`` bytes ``FRAMES`` of its frames, with the same duration.

    Raises:
        OSError: the file is missing, or is not a picture.
        DecompressionBombError: the picture has too many pixels.
    """
    with Image.open(path) as picture:
        if path.stat().st_size <= large:
            return _uri("gif", path.read_bytes())
        count = getattr(picture, "n_frames", 1)
        shown = sorted({round(i * (count - 1) / (FRAMES - 1)) for i in range(FRAMES)})
        frames: list[Image.Image] = []
        durations = [0] * len(shown)
        for number in range(count):
            picture.seek(number)
            if number == shown[len(frames)]:
                frames.append(_narrow(picture, WIDE))
            durations[len(frames) - 1] += int(picture.info.get("duration", 100))
        return _uri("webp", _webp(frames, durations, quality=None))


def _narrow(picture: Image.Image, width: int) -> Image.Image:
    """The picture in RGB, at most ``width`` wide."""
    picture = picture.convert("RGB")
    if picture.width <= width:
        return picture
    size = width, round(picture.height * width / picture.width)
    return picture.resize(size, Image.Resampling.BOX)


def _webp(frames: Sequence[Image.Image], durations: Sequence[int], quality: int | None) -> bytes:
    """WebP; lossless if ``quality`` is None, which suits enlarged pixels."""
    content, (first, *rest) = io.BytesIO(), frames
    options = {"lossless": quality is None, "quality": quality or 0, "method": 0}
    moving = {"save_all": bool(rest), "append_images": rest, "duration": list(durations), "loop": 0}
    first.save(content, "WEBP", **options, **moving)
    return content.getvalue()


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
