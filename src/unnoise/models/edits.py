"""Prompts and edits of pictures that a user types, or names by their files."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from unnoise.config.faults import Look
from unnoise.config.numbers import Count, Number, Positive
from unnoise.config.problems import Problem
from unnoise.data.decoding import Decoder, TooLarge
from unnoise.data.given import (
    check_picture,
    fitted_mask,
    read_mask,
    read_pictures,
    read_texts,
    texts_fault,
)
from unnoise.data.pixels import to_signal
from unnoise.diffusion.editing import Edit, ImageToImage, Inpaint, Interpolate
from unnoise.diffusion.posterior import (
    Masked,
    Measurement,
    Posterior,
    averages,
    blur,
)
from unnoise.models.codec import Codec

NEEDS = {
    "inpaint": ("image", "mask", "resample"),
    "image_to_image": ("image", "strength"),
    "interpolate": ("image",),
    "posterior": ("image", "noise"),
}
"""The keys of each edit; all must be given, and no others."""
MEASURED_BY = "mask", "blur", "factor"
"""Of edit=posterior, besides: one of them."""
HIDDEN = 128  # what is painted anew, as a picture without it shows it: grey


Texts = Annotated[str | list[str] | None, Look(texts_fault)]


@dataclass(frozen=True, kw_only=True)
class PromptKeys:
    """The keys of unnoise-sample that say what is to be drawn."""

    labels: list[Number | str] | None
    captions: Texts
    negative: Texts
    images: list[str] | None

    @property
    def texts(self) -> dict[str, list[str] | None]:
        """Captions, as they were typed or stand in a file."""
        return {"captions": read_texts(self.captions), "negative": read_texts(self.negative)}

    def prompt_problems(self) -> Iterator[Problem]:
        """Pictures that cannot be read."""
        yield from unreadable_pictures("images", self.images or [], numbered=True)

    def prompts(self, decoder: Decoder) -> dict[str, Any]:
        """All of them, as arguments of a trained model's ``draw``."""
        images = None if self.images is None else read_pictures(self.images, decoder)
        return {"labels": self.labels, **self.texts, "images": images}


@dataclass(frozen=True, kw_only=True)
class EditKeys:
    """The keys of unnoise-sample that say how which pictures are edited."""

    edit: Literal["inpaint", "image_to_image", "interpolate", "posterior"] | None
    image: str | list[str] | None
    mask: str | None
    strength: Annotated[float, Field(gt=0, le=1)] | None
    resample: Count | None
    noise: Positive | None = None
    blur: Positive | None = None
    factor: Annotated[int, Field(ge=2)] | None = None

    @property
    def files(self) -> list[str]:
        """Of ``image``."""
        return [self.image] if isinstance(self.image, str) else self.image or []

    def edit_problems(self, n: int, first: int) -> Iterator[Problem]:
        """What is wrong between the keys, or with the files; samples first … first + n − 1."""
        needs = NEEDS[self.edit] if self.edit else ()
        takes = {edit: (*keys, *_more(edit)) for edit, keys in NEEDS.items()}
        for key in dict.fromkeys(key for keys in takes.values() for key in keys):
            value = getattr(self, key)
            if value is None and key in needs:
                yield Problem(key, f"missing: edit={self.edit} needs it; give it as {key}=...")
            if value is not None and key not in takes.get(self.edit or "", ()):
                edits = [edit for edit, keys in takes.items() if key in keys]
                yield Problem(key, f"is not used here; it belongs to edit={' or '.join(edits)}")
        if (more := _more(self.edit)) and sum(getattr(self, key) is not None for key in more) != 1:
            ways = " or ".join(f"{key}=..." for key in more)
            yield Problem("edit", f"say how the image was measured, by one of them: {ways}")
        if self.edit is None:
            return
        files, number = self.files, 2 if self.edit == "interpolate" else 1
        if self.image is not None and len(files) != number:
            yield Problem("image", f"edit={self.edit} takes {number}, not {len(files)}")
        if self.edit == "interpolate" and n < 2:
            yield Problem("n", "must be >= 2: both ends are drawn")
        if self.edit == "interpolate" and first != 0:
            yield Problem("first", "must be 0: the n pictures are the way from one to the other")
        unreadable = unreadable_pictures("image", files)
        if self.mask is not None:
            unreadable += unreadable_pictures("mask", [self.mask])
        yield from unreadable
        if self.mask is not None and files and not unreadable:
            yield from mask_problems(self.mask, files[0])

    def make_edit(
        self, n: int, codec: Codec, decoder: Decoder
    ) -> tuple[Edit | None, dict[str, Tensor]]:
        """The edit of n samples, and the pictures that it is made from, uint8 (1, C, H, W) by name.

        Raises:
            ValueError: a file is damaged, or nothing of the mask is left at the model's size.
        """
        if self.edit is None:
            return None, {}
        if self.edit == "posterior":
            return self._posterior(codec, decoder)
        pictures = read_pictures(self.files, decoder)
        images, picture = codec.encode(pictures), pictures[:1]
        first = images[:1]
        if self.edit == "interpolate":
            edit: Edit = Interpolate(first, images[1:], n)
            given = {"first": picture, "second": pictures[1:]}
        elif self.edit == "image_to_image":
            assert self.strength is not None
            edit, given = ImageToImage(first, self.strength), {"original": picture}
        else:
            assert self.resample is not None
            mask = self._marked(decoder)
            touched = F.max_pool2d(mask.float(), codec.factor) > 0
            edit = Inpaint(first, touched, self.resample, (picture, mask))
            given = {"original": picture, "masked": picture.masked_fill(mask, HIDDEN)}
        return edit, given

    def _posterior(self, codec: Codec, decoder: Decoder) -> tuple[Edit, dict[str, Tensor]]:
        """Of pictures that were measured as ``image``."""
        assert self.noise is not None
        if not codec.is_pixels:
            raise ValueError("edit=posterior takes a model of pixels, not of latents")
        channels, height, width = decoder.shape
        if self.mask is not None:
            measurement: Measurement = Masked(~self._marked(decoder))
        elif self.blur is not None:
            measurement = blur(height, width, self.blur)
        else:
            assert self.factor is not None
            measurement = averages(height, width, self.factor)
            small = channels, height // self.factor, width // self.factor
            decoder = replace(decoder, shape=small)
        picture = read_pictures(self.files, decoder)
        seen = to_signal(picture)
        if isinstance(measurement, Masked):
            seen, picture = measurement(seen), picture * measurement.known
        edit = Posterior(seen, measurement, self.noise)
        return edit, {"measured": F.interpolate(picture, (height, width))}

    def _marked(self, decoder: Decoder) -> Tensor:
        """Where the mask is white, bool (1, 1, H, W); ValueError if that is nowhere."""
        assert self.mask is not None
        marked = read_mask(self.mask, self.files[0], decoder.most_pixels)
        mask = fitted_mask(marked, decoder.shape[1:], decoder.fit)
        if not mask.any():
            raise ValueError(
                f"{self.mask} marks too little: at the model's size no pixel is half white"
            )
        return mask


def _more(edit: str | None) -> tuple[str, ...]:
    return MEASURED_BY if edit == "posterior" else ()


def unreadable_pictures(key: str, files: Sequence[str], numbered: bool = False) -> list[Problem]:
    """A problem for each file that is no picture, under the key, or with its number behind it."""
    found = []
    for number, file in enumerate(files):
        try:
            check_picture(file)
        except ValueError as error:
            found.append(Problem(f"{key}.{number}" if numbered else key, str(error)))
    return found


def mask_problems(mask: str, photo: str) -> Iterator[Problem]:
    """What is wrong with a mask, or a warning if it is white all over: nothing is kept then."""
    try:
        least, _ = read_mask(mask, photo).getextrema()
    except TooLarge:
        return  # the run's data say how large it may be
    except ValueError as error:
        yield Problem("mask", str(error))
    else:
        if least == 255:
            yield Problem("mask", f"{mask} is white: nothing of the image is kept", "warning")
