"""The pixel conversions that the image sources share.

Shapes: N images, C channels (1 grey, 3 colour), H × W pixels. Pixels are uint8 throughout.
"""

from contextlib import suppress

import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torch.nn.functional import pad as pad_edges

from unnoise.data.memory import Unreadable
from unnoise.data.size import Fit, ImageSize, sides
from unnoise.data.source import Images

LOOKED_AT = 64  # pictures of a split
NARROW = 32  # levels: an eighth of the range


def pad(images: Tensor, size: tuple[int, ...]) -> Tensor:
    """Images (N, C, h, w) centred on black ones (N, C, *size)."""
    (height, width), (H, W) = images.shape[-2:], size
    if height > H or width > W:
        raise ValueError(f"images of {height}×{width} pixels do not fit into {H}×{W}")
    top, left = (H - height) // 2, (W - width) // 2
    return pad_edges(images, (left, W - width - left, top, H - height - top))


def resize(images: Tensor, size: tuple[int, ...], fit: Fit = "crop") -> Tensor:
    """Images (N, C, h, w) resampled to (N, C, *size), antialiased; ``fit`` where shapes differ."""
    (height, width), (H, W) = images.shape[-2:], size
    if fit == "crop":  # to the shape of the size
        h, w = scaled(size, min(height / H, width / W))
        images = images[..., (height - h) // 2 :, (width - w) // 2 :][..., :h, :w]
    inside = scaled((height, width), min(H / height, W / width)) if fit == "pad" else (H, W)
    if images.shape[-2:] != inside:
        images = interpolate(images, inside, mode="bilinear", antialias=True)
    return pad(images, size) if fit == "pad" else images


def scaled(size: tuple[int, ...], by: float) -> tuple[int, int]:
    """A size ``by`` as large, of whole pixels; at least one."""
    return max(1, round(size[0] * by)), max(1, round(size[1] * by))


def enlarge(images: Tensor, size: tuple[int, ...]) -> Tensor:
    """Pixel art (N, C, h, w) with every pixel made a square: (N, C, *size)."""
    times = size[0] // images.shape[-2]
    return images.repeat_interleave(times, dim=-1).repeat_interleave(times, dim=-2)


def check_multiple(size: ImageSize, of: ImageSize, what: str) -> None:
    """ValueError unless ``size`` is a multiple of the size ``of``, the same for both sides."""
    (height, width), (h, w) = sides(size), sides(of)
    if height % h or width % w or height // h != width // w:
        both = "" if isinstance(size, int) else ", the same for both sides"
        raise ValueError(f"image_size {size} is not a multiple of {what} {of}{both}")


def to_channels(images: Tensor, channels: int) -> Tensor:
    """Images (N, 1 or 3, H, W) to (N, channels, H, W): grey repeated, or colour's luma.

    Luma is 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601).
    """
    if images.shape[1] == channels:
        return images
    if channels == 3:
        return images.repeat(1, 3, 1, 1)
    r, g, b = images.to(torch.int32).unbind(1)
    return ((299 * r + 587 * g + 114 * b + 500) // 1000).to(torch.uint8).unsqueeze(1)


def to_signal(image: Tensor) -> Tensor:
    """Pixels uint8 0 … 255 to float32 −1 … 1."""
    return image.float() / 127.5 - 1


ROUNDING = "round((clamp(x) + 1) · 127.5) to uint8"


def to_pixels(x: Tensor) -> Tensor:
    """Float −1 … 1 to uint8 0 … 255, clamped and rounded to the nearest."""
    return ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def narrow(images: Images) -> str | None:
    """That a split uses less than an eighth of the range, as 12 bits in 16 do, in a line."""
    rows = torch.linspace(0, len(images) - 1, min(LOOKED_AT, len(images))).long()
    with suppress(Unreadable):  # what reads it in earnest says so
        pixels = images.read(rows)
        least, most = int(pixels.min()), int(pixels.max())
        if most - least < NARROW:
            return (
                f"{len(rows)} pictures looked at have only the values {least} … {most} of 0 … 255; "
                "where files hold fewer bits than their format has, say data.range=[black,white], "
                "as [0,4095] for 12 bits in 16"
            )
    return None
