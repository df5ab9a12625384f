"""What unnoise-sample is asked: its keys, the pictures they name, and what is wrong with them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
from PIL import Image
from pydantic import Field
from torch import Tensor

from unnoise.cli.checks import folder_problems, run_problems
from unnoise.config.problems import ConfigError, Problem
from unnoise.data.pixels import fitted, to_pixels, to_signal
from unnoise.data.source import Fit
from unnoise.diffusion.editing import Edit, ImageToImage, Inpaint, Interpolate
from unnoise.diffusion.samplers import Sampler
from unnoise.models.classifier import classifier_file
from unnoise.runs.layout import RunDirectory

Count = Annotated[int, Field(ge=1)]
Number = Annotated[int, Field(ge=0)]

TAKES = {
    "inpaint": ("image", "mask", "resample"),
    "image_to_image": ("image", "strength"),
    "interpolate": ("image",),
}
"""The keys of each edit; all must be given."""
BROKEN = (OSError, Image.DecompressionBombError)
"""What Pillow raises of a file that it cannot or will not read."""
HIDDEN = 0.0  # what is painted anew, as a picture without it shows it: grey


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be drawn: one field for each key of ``conf/sample.yaml``."""

    run: str
    n: Count
    seed: Number
    first: Number
    batch_size: Count
    sampler: Sampler | None
    steps: Count | None
    guidance: Annotated[float, Field(ge=0)] | None
    labels: list[Number] | None
    captions: list[str] | None
    images: list[str] | None
    weak: str | None
    classifier: str | None
    edit: Literal["inpaint", "image_to_image", "interpolate"] | None
    image: str | list[str] | None
    mask: str | None
    strength: Annotated[float, Field(gt=0, le=1)] | None
    resample: Count | None
    averaged: bool
    device: str
    out: str | None
    singles: bool

    def files(self) -> list[str]:
        """Of ``image``."""
        return [self.image] if isinstance(self.image, str) else self.image or []


def request_problems(request: Request) -> Iterator[Problem]:
    """What is wrong between the keys of a request, or with the files that it names."""
    from unnoise.runs.checkpoints import find_checkpoint

    if request.weak is not None:
        yield from run_problems("weak", request.weak)
    if request.classifier is not None and not classifier_file(request.classifier).is_file():
        yield Problem("classifier", f"there is no file {classifier_file(request.classifier)}")
    if request.weak is not None and request.classifier is not None:
        yield Problem("weak", "guidance is by a weak model or by a classifier, not by both")
    if request.weak is not None and request.guidance is None:
        yield Problem("guidance", "say how far to go from the weak model, as in guidance=2")
    for i, file in enumerate(request.images or []):
        yield from _unreadable(f"images.{i}", file)
    yield from _edit_problems(request)
    if request.out is not None:
        yield from folder_problems("out", Path(request.out))
    elif not run_problems("run", request.run):
        yield from folder_problems("out", drawn_folder(find_checkpoint(Path(request.run))))


def drawn_folder(checkpoint: Path) -> Path:
    """Where pictures go of which it is not said where."""
    return RunDirectory.of(checkpoint).drawn


def _edit_problems(request: Request) -> Iterator[Problem]:
    wanted = TAKES[request.edit] if request.edit else ()
    for key in ("image", "mask", "strength", "resample"):
        value = getattr(request, key)
        if value is None and key in wanted:
            yield Problem(key, f"missing: edit={request.edit} needs it; give it as {key}=...")
        if value is not None and key not in wanted:
            takers = [edit for edit, keys in TAKES.items() if key in keys]
            yield Problem(key, f"is not used here; it belongs to edit={' or '.join(takers)}")
    if request.edit is None:
        return
    files, number = request.files(), 2 if request.edit == "interpolate" else 1
    if request.image is not None and len(files) != number:
        yield Problem("image", f"edit={request.edit} takes {number}, not {len(files)}")
    if request.edit == "interpolate" and request.n < 2:
        yield Problem("n", "must be >= 2: both ends are drawn")
    if request.edit == "interpolate" and request.first != 0:
        yield Problem("first", "must be 0: the n pictures are the way from the one to the other")
    broken = [*(p for file in files for p in _unreadable("image", file))]
    if request.mask is not None:
        broken += _unreadable("mask", request.mask)
    yield from broken
    if request.mask is not None and files and not broken:
        sizes = [_size(file) for file in (files[0], request.mask)]
        if sizes[0] != sizes[1]:
            (w, h), (mask_w, mask_h) = sizes
            yield Problem("mask", f"is {mask_w}×{mask_h} pixels, but the image {w}×{h}")


def _unreadable(key: str, file: str) -> list[Problem]:
    try:
        _size(file)
    except FileNotFoundError:
        return [Problem(key, f"there is no file {file}")]
    except BROKEN as error:
        return [Problem(key, f"{file} is not a picture that can be read: {error}")]
    return []


def _size(file: str) -> tuple[int, int]:
    with Image.open(file) as picture:
        return picture.size


def read_pictures(files: Sequence[str], shape: Sequence[int], fit: Fit) -> Tensor:
    """Each in the model's size and colours, fitted as the run's data were: uint8 (N, *shape).

    Raises:
        ConfigError: a file is damaged.
    """
    pictures = []
    for file in files:
        try:
            with Image.open(file) as picture:
                pictures.append(fitted(picture, tuple(shape), fit))
        except BROKEN as error:
            raise ConfigError(f"{file} cannot be read: {error}") from error
    return torch.stack(pictures)


def edit_of(
    request: Request, shape: Sequence[int], fit: Fit
) -> tuple[Edit | None, dict[str, Tensor]]:
    """The edit, and what it is made from: pictures uint8 (1, C, H, W) by name.

    Raises:
        ValueError: the mask is black.
    """
    if request.edit is None:
        return None, {}
    images = to_signal(read_pictures(request.files(), shape, fit))
    first = images[:1]
    if request.edit == "interpolate":
        given = {"first": first, "second": images[1:]}
        return Interpolate(first, images[1:], request.n), _pixels(given)
    if request.edit == "image_to_image":
        assert request.strength is not None
        return ImageToImage(first, request.strength), _pixels({"original": first})
    assert request.mask is not None
    assert request.resample is not None
    mask = read_pictures([request.mask], (1, *shape[1:]), fit) > 127
    given = {"original": first, "masked": first.masked_fill(mask, HIDDEN)}
    return Inpaint(first, mask, request.resample), _pixels(given)


def _pixels(pictures: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: to_pixels(x) for name, x in pictures.items()}
