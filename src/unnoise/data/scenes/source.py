"""Scenes of sprites on backgrounds, 64 × 64 or 128 × 128 RGB, with classes and captions.

Scene i of a split is a function of (seed, split, i) alone, and is drawn when it is read. The
classes are the backgrounds, which take turns. Nothing that ``plans`` holds out is in either split.

Shapes: N scenes, S pixels of a side.
"""

import functools
import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Literal, NamedTuple, TypeVar, overload

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from unnoise.config.numbers import Count
from unnoise.data.scenes.agreement import ATTRIBUTES, agreement
from unnoise.data.scenes.backgrounds import BACKGROUNDS
from unnoise.data.scenes.captions import caption
from unnoise.data.scenes.drawing import draw
from unnoise.data.scenes.draws import Draws, key_of
from unnoise.data.scenes.layout import Subject, place
from unnoise.data.scenes.plans import NAMES, NOVELTIES, Group, Novelty, Relation, draw_plan
from unnoise.data.scenes.recognition import recognise
from unnoise.data.source import Images, ImageSource, Split
from unnoise.data.sprites.drawings import COLOURS

T = TypeVar("T", covariant=True)
STATED, DRAWN = 0, 1  # purposes of random numbers: what a scene shows, and how it looks
LOOKED_AT = 256  # scenes whose pixels are in a fingerprint
PLACES = ("on the left", "in the middle", "on the right")


class Scene(NamedTuple):
    """What a picture shows, its subjects from the farthest to the nearest."""

    background: str
    groups: tuple[Group, ...]
    relation: Relation | None
    subjects: tuple[Subject, ...]
    horizon: int
    caption: str

    @property
    def nearest(self) -> Group:
        """The group of the nearest subject."""
        return self.groups[self.subjects[-1].group]

    @property
    def kind(self) -> str:
        """That of the nearest subject."""
        return self.nearest.kind

    @property
    def colour(self) -> str:
        """That of the nearest subject."""
        return self.nearest.colour


@functools.lru_cache(4096)
def scene(key: int, index: int, side: int, novelty: Novelty | None) -> Scene:
    """Scene ``index`` of a key, for pictures of this side; with something held out, or nothing."""
    draws, background = Draws(key, index, STATED), BACKGROUNDS[index % len(BACKGROUNDS)]
    placed = None
    while placed is None:
        plan = draw_plan(draws, novelty)
        placed = place(plan, side, draws)
    horizon, subjects = placed
    spot = PLACES[int(subjects[0].centre * 3) // side] if len(subjects) == 1 else None
    words = caption(plan, background.where, spot, draws)
    return Scene(background.name, *plan, subjects, horizon, words)


class _Each(Sequence[T]):
    """A sequence whose values are computed when they are read."""

    def __init__(self, length: int, value: Callable[[int], T]) -> None:
        self._length, self._value = length, value

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...
    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        places = range(self._length)[index]
        return self._value(places) if isinstance(places, int) else [*map(self._value, places)]


class SceneImages(Images):
    """N scenes drawn when they are read: ``attributes[i]`` says what scene i shows.

    What is held out of scene i is of one of ``novelties``, in turn; 8 len(novelties) scenes show
    each of them in each place.
    """

    def __init__(self, size: int, side: int, key: int, novelties: Sequence[Novelty | None]) -> None:
        self.side, self.key, self.novelties = side, key, novelties
        self.labels = torch.arange(size) % len(BACKGROUNDS)
        self.attributes: Sequence[Scene] = _Each(size, self._scene)
        self.captions: Sequence[str] = _Each(size, self._caption)

    def read(self, indices: Tensor) -> Tensor:
        """Scenes ``indices`` (B,) as uint8 (B, 3, S, S)."""
        found = np.empty((len(indices), 3, self.side, self.side), np.uint8)
        for picture, index in zip(found, indices.tolist(), strict=True):
            shown = self._scene(index)
            draws = Draws(self.key, index, DRAWN)
            background = index % len(BACKGROUNDS)
            tones, colours = draw(
                background, shown.horizon, shown.groups, shown.subjects, self.side, draws
            )
            for channel, values in zip(picture, colours.T.copy(), strict=True):
                values.take(tones, out=channel, mode="clip")
        return torch.from_numpy(found)

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of all that decides the scenes, and of what the first of them show.

        It would take minutes to draw all of them for it.
        """
        return hashlib.sha256(f"{len(self)} {self._made}".encode()).hexdigest()

    def contents(self) -> Iterator[tuple[str, str]]:
        """(name, hex digest) of each scene in order; of what decides it, not of its pixels."""
        for index in range(len(self)):
            yield f"image {index}", hashlib.sha256(f"{index} {self._made}".encode()).hexdigest()

    @functools.cached_property
    def _made(self) -> str:
        """A digest of what decides each scene, and of the first ones: captions, boxes, pixels."""
        first = range(LOOKED_AT)
        digest = hashlib.sha256(repr((self.side, self.key, self.novelties)).encode())
        digest.update(repr([self._scene(index) for index in first]).encode())
        digest.update(self.read(torch.tensor(first)).numpy().data)
        return digest.hexdigest()

    def _scene(self, index: int) -> Scene:
        count = len(self.novelties)
        shift = index // math.lcm(count, len(BACKGROUNDS))  # after which both begin anew
        return scene(self.key, index, self.side, self.novelties[(index + shift) % count])

    def _caption(self, index: int) -> str:
        return self._scene(index).caption


class _Lessons(Images):
    """A split whose label (K,) of each scene is an equal share for each word that is true of it."""

    def __init__(self, images: SceneImages, words: Sequence[str]) -> None:
        self.images, number = images, {word: k for k, word in enumerate(words)}
        self.labels = torch.zeros(len(images), len(words))
        for row, shown in zip(self.labels, images.attributes, strict=True):
            true = {shown.background, *(w for g in shown.groups for w in (g.kind, g.colour))}
            row[[number[word] for word in true]] = 1 / len(true)

    @property
    def fingerprint(self) -> str:
        """That of the scenes."""
        return self.images.fingerprint

    def read(self, indices: Tensor) -> Tensor:
        """Scenes ``indices`` (B,) as uint8 (B, 3, S, S)."""
        return self.images.read(indices)


class Scenes(ImageSource):
    """``size`` training and ``validation_size`` validation scenes, drawn when they are read.

    Needs no files and no network. The last two arguments only state what the set is.

    Args:
        image_size: 64, or 128: more room, since small subjects are twice as large as with 64
            and large ones one and a half times.
    """

    captioned = True
    extractor = "scenes"
    attributes = ("kind", "colour")
    novelties = NOVELTIES
    lesson_names = (*(background.name for background in BACKGROUNDS), *NAMES, *COLOURS)

    def __init__(
        self,
        size: Count = 100_000,
        validation_size: Count = 2_000,
        seed: Annotated[int, Field(ge=0, lt=2**32)] = 0,
        image_size: Literal[64, 128] = 64,
        channels: Literal[3] = 3,
        classes: Literal[8] = 8,
    ) -> None:
        super().__init__(image_size, channels)
        self.size, self.validation_size, self.seed = size, validation_size, seed

    def class_names(self) -> tuple[str, ...]:
        """The backgrounds."""
        return tuple(background.name for background in BACKGROUNDS)

    def check(self) -> int:
        """The number of training scenes."""
        return self.size

    def images(self, split: Split) -> SceneImages:
        """A split."""
        if split == "train":
            return self._images(self.size, 0, (None,))
        return self._images(self.validation_size, 1, (None,))

    def lessons(self, split: Split) -> Images:
        """A split, labelled by the words that are true of a scene: its place, kinds and colours.

        The place alone would suffice to learn the eight classes, with features that do not see the
        subjects.
        """
        return _Lessons(self.images(split), self.lesson_names)

    def held_out(self, size: int = 1_000, novelties: Sequence[Novelty] = NOVELTIES) -> SceneImages:
        """Scenes with something in neither split: in turn of each of these sorts.

        A "pairing" of a kind and a colour or item, a "relation" of two kinds, or the "count" of one
        kind; nothing else in a scene is held out.

        Raises:
            ValueError: there is no scene, or novelties are no list of such sorts.
        """
        if size < 1:
            raise ValueError(f"size must be at least 1, not {size}")
        if isinstance(novelties, str) or not novelties or set(novelties) - set(NOVELTIES):
            raise ValueError(
                f"novelties must be a list of some of {', '.join(NOVELTIES)}, not {novelties!r}"
            )
        return self._images(size, 2, tuple(novelties))

    def agreement(self, pictures: Tensor, says: Sequence[Scene]) -> dict[str, Tensor]:
        """Whether picture n (N, 3, S, S) uint8 shows what scene n does, by ``agreement``'s names.

        Of each attribute a bool for each scene that says something of it; "all" is last.
        """
        found: dict[str, list[bool]] = {name: [] for name in ATTRIBUTES}
        for start in range(0, len(pictures), 32):
            seen = recognise(pictures[start : start + 32])
            for each, scene in zip(seen, says[start : start + 32], strict=True):
                for name, agrees in agreement(each, scene).items():
                    found[name].append(agrees)
        return {name: torch.tensor(agree) for name, agree in found.items() if agree}

    def _images(self, size: int, split: int, novelties: Sequence[Novelty | None]) -> SceneImages:
        return SceneImages(size, self.shape[1], key_of(self.seed, split), novelties)
