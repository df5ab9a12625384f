"""Picture files to 8-bit pixels: any mode and depth that Pillow reads, upright, on white.

Of a file with several pictures (animated GIF, PNG or WebP; TIFF with pages) the first is read.
Pillow keeps the upper 8 bits of 16-bit colour. What a file says beside its pixels does not make
them unreadable: broken text, profiles and EXIF data are passed over.
"""

import io
import math
import re
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps
from pydantic import Field
from torch import Tensor

from unnoise.data.pixels import pad, scaled
from unnoise.data.size import Fit
from unnoise.runs.identity import Role

Range = tuple[float, float]
"""The values that are black and white in files deeper than 8 bits."""
MOST_PIXELS = 178_956_970
"""Of a picture: where Pillow's own guard against files made to fill the memory ends a program."""
MostPixels = Annotated[int, Field(ge=1), Role.MACHINE]

T = TypeVar("T")
File = str | Path | bytes
"""A path, or what is in the file."""
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
ACROSS = {_TURNS[k] for k in (5, 6, 7, 8)}
"""The turns that swap height and width."""
_SAMPLE_FORMAT, _PHOTOMETRIC = 339, 262  # of TIFF
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Decoder:
    """Files to pictures of one shape, as a run's data say.

    Args:
        shape: (C, H, W).
        fit: how a picture of another shape becomes one of (H, W).
        range: (black, white) of grey values deeper than 8 bits; what is outside is clipped. None:
            what the file's format says, 0 … 65535 for 16 bits; 32-bit and float values need it.
        most_pixels: larger pictures are refused.

    Raises:
        ValueError: the range is not of two finite numbers that rise.
    """

    shape: tuple[int, ...]
    fit: Fit = "crop"
    range: Range | None = None
    most_pixels: int = MOST_PIXELS

    def __post_init__(self) -> None:
        low, high = self.range or (0, 1)
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(f"range must be [black, white] with black < white, not {self.range}")

    def __call__(self, file: File) -> Tensor:
        """uint8 (C, H, W); whatever Pillow raises of a damaged file, or ValueError."""
        return read(file, self.fitted, self.most_pixels)

    def fitted(self, picture: Image.Image) -> Tensor:
        """An open picture: uint8 (C, H, W)."""
        return fitted(picture, self.shape, self.fit, self.range)

    @classmethod
    def of(cls, shape: Sequence[int], keys: Mapping[str, Any]) -> Self:
        """As a run's ``data`` say; those of sources that are not files may lack the keys."""
        said = {key: keys[key] for key in ("fit", "range", "most_pixels") if key in keys}
        return cls(tuple(shape), **said)

    @property
    def deciding(self) -> tuple[object, ...]:
        """What decides the pixels, for a fingerprint."""
        key = (self.shape, self.fit)
        return key if self.range is None else (*key, tuple(map(float, self.range)))


def read(file: File, use: Callable[[Image.Image], T], most_pixels: int = MOST_PIXELS) -> T:
    """What ``use`` makes of an open picture; anew without its metadata, where those are broken.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it has more than ``most_pixels``.
        Exception: whatever Pillow raises of what is no picture, and what ``use`` raises.
    """
    try:
        with _open(io.BytesIO(file) if isinstance(file, bytes) else file, most_pixels) as picture:
            return use(picture)
    except (FileNotFoundError, IsADirectoryError, TooLarge):
        raise
    except Exception:  # Pillow has no end of errors for broken metadata
        data = _without_metadata(file if isinstance(file, bytes) else Path(file).read_bytes())
        if data is None:
            raise
    with _open(io.BytesIO(data), most_pixels) as picture:
        return use(picture)


class TooLarge(ValueError):
    """A picture has more pixels than are allowed."""


def _check_size(pixels: int, most: int) -> None:
    if pixels > most:
        raise TooLarge(
            f"it has {pixels:,} pixels, more than data.most_pixels ({most:,}), which keeps files "
            f"from filling the memory: make it smaller, or set data.most_pixels={pixels}"
        )


def _open(file: str | Path | io.BytesIO, most_pixels: int) -> Image.Image:
    if Image.MAX_IMAGE_PIXELS is not None and most_pixels > MOST_PIXELS:
        Image.MAX_IMAGE_PIXELS = max(most_pixels, Image.MAX_IMAGE_PIXELS)
    try:
        picture = Image.open(file)
    except Image.DecompressionBombError as error:
        size = re.search(r"\d+", str(error))
        _check_size(int(size[0]) if size else most_pixels + 1, most_pixels)
        raise
    try:
        _check_size(picture.width * picture.height, most_pixels)
    except TooLarge:
        picture.close()
        raise
    return picture


def _without_metadata(data: bytes) -> bytes | None:
    """A PNG or JPEG file with nothing but pixels and orientation; None for another format."""
    if data.startswith(_PNG):
        return _PNG + b"".join(_png_chunks(data))
    if data.startswith(b"\xff\xd8"):
        return b"\xff\xd8" + b"".join(_jpeg_segments(data))
    return None


def _png_chunks(data: bytes) -> Iterator[bytes]:
    at = len(_PNG)
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        chunk = data[at : at + 12 + length]
        sound = chunk[-4:] == struct.pack(">I", zlib.crc32(chunk[4:-4]))
        if kind in (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND") or (kind == b"eXIf" and sound):
            yield chunk
        at += 12 + length


def _jpeg_segments(data: bytes) -> Iterator[bytes]:
    at, start_of_scan = 2, 0xDA
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != start_of_scan:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4])
        segment = data[at:end]
        application, comment = 0xE0 <= segment[1] <= 0xEF, segment[1] == 0xFE
        adobe = segment[1] == 0xEE and len(segment) >= 16  # says how colours are coded
        if not (application or comment) or adobe or segment[4:10] == b"Exif\0\0":
            yield segment
        at = end
    yield data[at:]


def turn_of(picture: Image.Image) -> Image.Transpose | None:
    """What makes a picture upright; None where its EXIF data say nothing, or are broken."""
    try:
        return _TURNS.get(picture.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # Pillow has no end of errors for broken EXIF data
        return None


def upright(picture: Image.Image) -> Image.Image:
    """A picture turned as its EXIF data say."""
    picture.load()  # a TIFF turns itself
    turn = turn_of(picture)
    return picture if turn is None else picture.transpose(turn)


def from_pil(
    picture: Image.Image, channels: int, range: Range | None = None, ground: str = "white"
) -> Image.Image:
    """A picture of any mode as 8-bit grey ("L") or colour ("RGB"), upright, on ``ground``.

    Raises:
        ValueError: its values have no range by themselves and ``range`` is None, or it cannot be
            applied; or they are not finite.
    """
    tile = getattr(picture, "tile", None)
    raw = tile[0].args if tile else ""
    raw = str(raw if isinstance(raw, str) else raw[0] if raw else "")
    tags = getattr(picture, "tag_v2", {})
    if tags.get(_SAMPLE_FORMAT) == (2,) and picture.mode == "L":
        raise ValueError("it holds signed 8-bit values, which Pillow does not read: convert it")
    if ";16" in raw and range is not None and len(picture.getbands()) > 1:
        raise ValueError(
            "it has 16 bits a channel, of which Pillow reads the upper 8: data.range is for grey"
        )
    picture = upright(picture)
    if picture.mode.startswith(("I", "F")):
        picture = _eight_bits(picture, raw, range, inverted=tags.get(_PHOTOMETRIC) == 0)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, ground), picture)
    return picture.convert("L" if channels == 1 else "RGB")


def _eight_bits(picture: Image.Image, raw: str, range: Range | None, inverted: bool) -> Image.Image:
    """Grey deeper than 8 bits as "L", or "LA" where one of its values means transparent."""
    values = np.asarray(picture)
    if raw.startswith("I;32") and not raw.endswith("S"):
        values = values.view(np.uint32)
    clear = picture.info.get("transparency")
    if range is not None:
        low, high = range
        if not np.isfinite(values).all():
            raise ValueError("it holds NaN or infinity")
        grey = np.rint((values.astype(np.float64).clip(low, high) - low) * (255 / (high - low)))
    elif picture.mode.startswith("I;16") or picture.format in ("PNG", "PPM"):
        grey = values >> (4 if raw == "I;12" else 8)
    else:
        kind = "float" if picture.mode == "F" else "32-bit or signed"
        raise ValueError(
            f"it holds {kind} values ({values.min():g} … {values.max():g}), for which its format "
            "has no range: say what is black and white, as in data.range=[0,1]"
        )
    light = 255 - grey if inverted else grey
    shallow = Image.fromarray(light.astype(np.uint8))
    if isinstance(clear, int):
        shallow.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return shallow


def fitted(
    picture: Image.Image, shape: tuple[int, ...], fit: Fit = "crop", range: Range | None = None
) -> Tensor:
    """A picture of any size and mode, resampled with antialiasing: uint8 ``shape`` (C, H, W)."""
    channels, height, width = shape
    placed_ = placed(from_pil(picture, channels, range), (height, width), fit)
    pixels = np.array(placed_).reshape(placed_.height, placed_.width, channels)
    return pad(torch.from_numpy(pixels).permute(2, 0, 1), (height, width)).contiguous()


def placed(
    picture: Image.Image,
    size: tuple[int, int],
    fit: Fit,
    by: Image.Resampling = Image.Resampling.BICUBIC,
) -> Image.Image:
    """A picture resampled to ``size`` (H, W), or with fit="pad" to fit inside it."""
    height, width = size
    if picture.size == (width, height):
        return picture
    if fit == "crop":
        return ImageOps.fit(picture, (width, height), by)
    inside = width, height
    if fit == "pad":
        share = min(height / picture.height, width / picture.width)
        inside = scaled((picture.width, picture.height), share)
    return picture.resize(inside, by)
