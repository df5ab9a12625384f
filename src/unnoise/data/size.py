"""How large pictures are to be."""

from typing import Annotated, Any, Literal

from pydantic import Field

from unnoise.runs.identity import Spelling

Side = Annotated[int, Field(ge=4)]


def one_side(size: Any) -> Any:
    """An ``image_size`` as YAML may hold it; of a square the side alone."""
    match size:
        case [height, width] if height == width:
            return height
    return size


ImageSize = Annotated[Side | tuple[Side, Side], Spelling(one_side)]
"""Pixels: the side of a square, or (height, width)."""
Fit = Literal["crop", "pad", "stretch"]
"""How a picture of another shape becomes one of (H, W): its largest central part of that shape
resized, or all of it resized to fit inside, on black, or each side resized on its own."""


def sides(size: ImageSize) -> tuple[int, int]:
    """(height, width) of an ``image_size``."""
    if isinstance(size, int):
        return size, size
    height, width = size
    return height, width
