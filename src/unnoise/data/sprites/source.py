"""Pixel-art sprites drawn from templates: 16 × 16 RGB on white, with labels and captions.

A sprite is a kind's drawing, the item it carries behind it, and one ramp chosen from each group of
the palette that these use: "a red knight with a gold sword facing left".

Sprite i is a function of (seed, i) alone. Kinds take turns, class by class, and the n-th sprite of
a kind is entry n of a seeded permutation of all its attribute combinations. So no sprite comes
twice, and classes and kinds have equal shares. Training reads the permutations from the front,
validation from the back; the pairings in ``Kind.held_out`` are in neither.

Shapes: N sprites.
"""

from collections.abc import Sequence
from math import prod
from typing import Annotated, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from unnoise.config.numbers import Count
from unnoise.data.memory import TensorImages
from unnoise.data.source import ImageSource, Split
from unnoise.data.sprites.drawings import (
    CLASSES,
    COLOURS,
    FACINGS,
    ITEMS,
    KINDS,
    PALETTE,
    STAMPS,
    TINTS,
    Attributes,
    Kind,
    Pair,
)
from unnoise.data.sprites.recognition import combinations

Choices = dict[str, NDArray[np.intp]]  # for each factor of a kind, a choice (n,)


def _lesson(class_name: str, kind: str, colour: str, item: str | None) -> str:
    return f"{class_name}: {colour} {kind}" + (f" with {item}" if item else "")


class SpriteImages(TensorImages):
    """Sprites in memory: ``attributes[i]`` says what sprite i shows."""

    attributes: Sequence[Attributes]

    def __init__(self, images: torch.Tensor, attributes: Sequence[Attributes]) -> None:
        labels = torch.tensor([CLASSES.index(each.class_name) for each in attributes])
        super().__init__(images, labels, [each.caption for each in attributes])
        self.attributes = attributes


class Sprites(ImageSource):
    """``size`` training and ``validation_size`` validation sprites, none of them twice.

    Sprite i of a split is the same whatever the sizes. Needs no files and no network. The last
    three arguments only state what the set is.

    Raises:
        ValueError: both sizes together exceed the distinct sprites there are.
    """

    captioned = True
    extractor = "sprites"
    attributes = ("kind", "colour", "item", "material", "facing")
    lesson_names = tuple(
        _lesson(kind.class_name, kind.name, *pair) for kind in KINDS for pair in kind.shown
    )
    combinations = len(lesson_names)

    def __init__(
        self,
        size: Count = 20_000,
        validation_size: Count = 2_000,
        seed: Annotated[int, Field(ge=0)] = 0,
        image_size: Literal[16] = 16,
        channels: Literal[3] = 3,
        classes: Literal[5] = 5,
    ) -> None:
        rounds = min(prod(kind.factors(kind.shown).values()) for kind in KINDS)
        if -(-size // len(KINDS)) - (-validation_size // len(KINDS)) > rounds:
            raise ValueError(
                f"size {size} + validation_size {validation_size} exceed the "
                f"{rounds * len(KINDS)} distinct sprites there are"
            )
        super().__init__(image_size, channels)
        self.size, self.validation_size, self.seed = size, validation_size, seed

    def class_names(self) -> tuple[str, ...]:
        """The five classes."""
        return CLASSES

    def check(self) -> int:
        """The number of training sprites."""
        return self.size

    def images(self, split: Split) -> SpriteImages:
        """Draw a split."""
        if split == "train":
            return self._draw(self.size)
        return self._draw(self.validation_size, from_back=True)

    def lessons(self, split: Split) -> TensorImages:
        """A split, labelled by what a sprite is, in which colour, with which item.

        The outline alone would suffice to learn the five classes, with features that do not see
        the colours and items that captions name.
        """
        images = self.images(split)
        number = {name: k for k, name in enumerate(self.lesson_names)}
        names = (_lesson(a.class_name, a.kind, a.colour, a.item) for a in images.attributes)
        return TensorImages(images.images, torch.tensor([number[name] for name in names]))

    def combination(self, pictures: torch.Tensor) -> torch.Tensor:
        """Which of ``lesson_names`` pictures show; held-out ones follow, −1 is none of all."""
        return combinations(pictures)

    def held_out(self, size: int = 1_000) -> SpriteImages:
        """Draw ``size`` sprites of pairings in neither split; ValueError if there are fewer."""
        most = len(KINDS) * min(prod(kind.factors(kind.held_out).values()) for kind in KINDS)
        if not 0 < size <= most:
            raise ValueError(f"size must be from 1 to {most}, not {size}")
        return self._draw(size, held_out=True)

    def _draw(self, size: int, from_back: bool = False, held_out: bool = False) -> SpriteImages:
        images = np.empty((size, 256, 3), np.uint8)
        attributes: dict[int, Attributes] = {}
        for number, kind in enumerate(KINDS[:size]):
            pairs = kind.held_out if held_out else kind.shown
            factors = kind.factors(pairs)
            rng = np.random.default_rng((self.seed, number, held_out))
            order = rng.permutation(prod(factors.values()))[:: -1 if from_back else 1]
            rows = np.arange(number, size, len(KINDS))
            digits = np.unravel_index(order[: len(rows)], tuple(factors.values()))
            choices = dict(zip(factors, digits, strict=True))
            images[rows] = _render(number, pairs, choices)
            attributes |= zip(rows.tolist(), _attributes(kind, pairs, choices), strict=True)
        pixels = torch.from_numpy(images).view(size, 16, 16, 3).permute(0, 3, 1, 2).contiguous()
        return SpriteImages(pixels, [attributes[row] for row in range(size)])


def _render(number: int, pairs: tuple[Pair, ...], choices: Choices) -> NDArray[np.uint8]:
    """Sprites (n, 256, 3) of kind ``number``."""
    indices = [(COLOURS.index(colour), (*ITEMS, None).index(item)) for colour, item in pairs]
    colours, items = np.array(indices)[choices["pair"]].T
    palette = []
    for group, ramp in PALETTE.items():
        tones = np.stack(list(ramp.tones.values()))
        if group == "colour":
            tinted = tones[colours] * TINTS[choices["tint"]][:, None]
            palette.append(tinted.round().clip(0, 255).astype(np.uint8))
        else:
            palette.append(tones[choices.get(group, np.zeros_like(items))])
    stamps = STAMPS[number, items, choices["facing"], choices["shift"]].astype(np.intp)
    return np.take_along_axis(np.concatenate(palette, 1), stamps[..., None], 1)


def _attributes(kind: Kind, pairs: tuple[Pair, ...], choices: Choices) -> list[Attributes]:
    facing = {"facing": FACINGS} if kind.class_name == "side-facing" else {}
    names = facing | {group: tuple(PALETTE[group].tones) for group in kind.groups}
    picked = ([values[i] for i in choices[name].tolist()] for name, values in names.items())
    return [
        Attributes(kind.class_name, kind.name, *pairs[pair], **dict(zip(names, row, strict=True)))
        for pair, *row in zip(choices["pair"].tolist(), *picked, strict=True)
    ]
