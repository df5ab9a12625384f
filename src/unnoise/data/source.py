"""Data sets: pictures by number, in two splits.

Shapes: B batch, C channels, H × W pixels, N pictures in the split.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, Literal, Protocol, TypedDict, runtime_checkable

import torch
from torch import Tensor

from unnoise.data.size import ImageSize, sides

Split = Literal["train", "validation"]


class Batch(TypedDict, total=False):
    """What a loader yields; every tensor has B rows."""

    image: Tensor  # (B, C, H, W) uint8; left out where "moments" are there and nobody reads it
    moments: Tensor  # (B, K, h, w) float32, what an autoencoder made of the picture
    label: Tensor  # (B,) int64, index into the source's class names
    position: Tensor  # (B,) int64, place in the training stream, or in the split
    index: Tensor  # (B,) int64, which picture of the split
    caption: list[str]  # only where the source has captions


class Images(ABC):
    """The pictures of one split, addressed by number.

    ``labels`` is (N,) int64. ``captions`` holds N strings, or is None; ``attributes`` N named
    tuples of what a picture shows, or is None. ``quarantined`` says of each picture that could not
    be read what replaces it.
    """

    labels: Tensor
    captions: Sequence[str] | None = None
    attributes: Sequence[Any] | None = None
    quarantined: Sequence[str] = ()

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """A hex digest that changes whenever a pixel or a label does."""

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def read(self, indices: Tensor) -> Tensor:
        """Pictures ``indices`` (B,) as uint8 (B, C, H, W)."""

    def contents(self) -> Iterator[tuple[str, str]]:
        """(name, hex digest) of each picture in order; by default of pixels, label and caption."""
        for rows in torch.split(torch.arange(len(self)), 256):
            pixels, labels = self.read(rows).numpy(), self.labels[rows].tolist()
            for index, picture, label in zip(rows.tolist(), pixels, labels, strict=True):
                caption = "" if self.captions is None else self.captions[index]
                digest = hashlib.sha256(picture.tobytes() + repr((label, caption)).encode())
                yield f"image {index}", digest.hexdigest()


class ImageSource(ABC):
    """A data set: what a ``conf/data`` file names. ``captioned``: its pictures have captions.

    ``check`` looks without reading pictures; ``prepare`` fetches what is missing (one process calls
    it); ``images`` opens a split. All raise FileNotFoundError saying which file belongs where, or
    ValueError for a file that is not what its name says.

    ``shape`` is (C, H, W), that of every picture.
    """

    shape: tuple[int, ...]
    captioned: bool = False
    extractor: str | None = None  # the name of the one that comes with the set

    def __init__(self, image_size: ImageSize, channels: int) -> None:
        self.shape = (channels, *sides(image_size))

    def class_names(self) -> tuple[str, ...]:
        """One name a label; empty where pictures have no classes."""
        return ()

    def check(self) -> int | None:
        """The number of training pictures, where it is known before they are read."""
        return None

    def prepare(self) -> None:
        """Make the files ready on this machine, downloading at most once."""
        self.check()

    @abstractmethod
    def images(self, split: Split) -> Images:
        """Open a split."""


@runtime_checkable
class HoldsOut(Protocol):
    """A source that keeps some combinations of what its captions name out of both splits."""

    attributes: tuple[str, ...]  # of its pictures, that a classifier can tell
    validation_size: int

    def held_out(self, size: int = ...) -> Images:
        """Pictures of ``size`` such combinations."""
        ...


@runtime_checkable
class Recognises(Protocol):
    """A source that can tell, without a classifier, whether a picture shows what a caption says.

    ``novelties`` are the sorts of things that it keeps out of both splits.
    """

    novelties: Sequence[str]
    validation_size: int

    def held_out(self, size: int = ..., novelties: Sequence[Any] = ...) -> Images:
        """Pictures with something of one of these sorts."""
        ...

    def agreement(self, pictures: Tensor, says: Sequence[Any]) -> dict[str, Tensor]:
        """Whether picture n shows what the attributes ``says[n]`` of another say.

        For each thing that can be said, a bool for each picture that was to show it; "all" is last.
        """
        ...


@runtime_checkable
class HasCombinations(Protocol):
    """A source that knows all combinations that its pictures come in, and tells which one it is.

    Those of training have the numbers below ``combinations``.
    """

    combinations: int

    def combination(self, pictures: Tensor) -> Tensor:
        """The number that each picture (N, C, H, W) uint8 shows, (N,) int64; −1 for none."""
        ...


@runtime_checkable
class HasLessons(Protocol):
    """A source with finer classes than its labels, for the extractor to learn.

    The labels of lessons are (N,) int64, or (N, K) shares of each picture among the classes.
    """

    lesson_names: tuple[str, ...]

    def lessons(self, split: Split) -> Images:
        """A split, labelled with these classes."""
        ...
