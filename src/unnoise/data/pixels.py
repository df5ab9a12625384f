"""Images held in memory, and the pixel conversions the image sources share.

Shapes: N images, C channels (1 grey, 3 colour), H × W pixels. Pixels are uint8 throughout.
"""

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn.functional import interpolate
from torch.nn.functional import pad as pad_edges


def pad(images: Tensor, size: int) -> Tensor:
    """Images (N, C, h, w) centred on black squares (N, C, size, size)."""
    height, width = images.shape[-2:]
    if max(height, width) > size:
        raise ValueError(f"images of {height}×{width} pixels do not fit into {size}×{size}")
    top, left = (size - height) // 2, (size - width) // 2
    return pad_edges(images, (left, size - width - left, top, size - height - top))


def resize(images: Tensor, size: int) -> Tensor:
    """Square images (N, C, h, h) resampled to (N, C, size, size), antialiased."""
    if images.shape[-1] == size:
        return images
    return interpolate(images, (size, size), mode="bilinear", antialias=True)


def enlarge(images: Tensor, size: int) -> Tensor:
    """Pixel art (N, C, h, h) with every pixel made a square: (N, C, size, size).

    Raises:
        ValueError: size is not a multiple of h.
    """
    times, rest = divmod(size, images.shape[-1])
    if rest or not times:
        raise ValueError(f"image_size {size} is not a multiple of the sprites' {images.shape[-1]}")
    return images.repeat_interleave(times, dim=-1).repeat_interleave(times, dim=-2)


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


def from_pil(picture: Image.Image, channels: int) -> Image.Image:
    """A picture of any mode as 8-bit grey ("L") or colour ("RGB"), upright, on white."""
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I"):  # 16-bit grey, which Pillow would clip at 255
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    return picture.convert("L" if channels == 1 else "RGB")


def square(picture: Image.Image, size: int, channels: int) -> Tensor:
    """The central square of a picture, resampled with antialiasing: uint8 (C, size, size)."""
    picture = from_pil(picture, channels)
    if picture.size != (size, size):
        picture = ImageOps.fit(picture, (size, size), Image.Resampling.BICUBIC)
    pixels = np.array(picture).reshape(size, size, channels)
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def to_signal(image: Tensor) -> Tensor:
    """Pixels uint8 0 … 255 to float32 −1 … 1."""
    return image.float() / 127.5 - 1


ROUNDING = "round((clamp(x) + 1) · 127.5) to uint8"


def to_pixels(x: Tensor) -> Tensor:
    """Float −1 … 1 to uint8 0 … 255, clamped and rounded to the nearest."""
    return ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
