"""Pixel-art sprites drawn from templates: 16 × 16 RGB on white, with labels and captions.

``art`` holds the drawings. ``palette.txt`` lists groups of ramps (colour, material, skin, …);
the other files hold drawings, each a name and 16 rows of 16 symbols, a symbol being one tone of
one group. A sprite is a kind's drawing, the item it carries behind it, and one ramp chosen from
each group that these use: "a red knight with a gold sword facing left".

Sprite i is a function of (seed, i) alone. Kinds take turns, class by class, and the n-th sprite of
a kind is entry n of a seeded permutation of all its attribute combinations. So no sprite comes
twice, and classes and kinds have equal shares. Training reads the permutations from the front,
validation from the back; the pairings in ``Kind.held_out`` are in neither.

Shapes: N sprites, K kinds, S symbols.
"""

from collections.abc import Iterable, Sequence
from importlib import import_module, resources
from itertools import chain, product
from math import prod
from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from unnoise.config.numbers import Count
from unnoise.data.memory import TensorImages
from unnoise.data.source import ImageSource, Split

Pair = tuple[str, str | None]  # colour and item
Choices = dict[str, NDArray[np.intp]]  # for each factor of a kind, a choice (n,)

CLASSES = ("hero", "non-hero", "food", "spell", "side-facing")
CARRIERS = ("hero", "side-facing")  # the classes that carry an item
FACINGS = ("right", "left")
SHIFTS = 2  # a sprite stands where it is drawn, or a pixel to the left
_LIGHT, _WARM = np.meshgrid(np.linspace(0.94, 1.06, 5), np.linspace(-0.04, 0.04, 5))
TINTS = np.stack([_LIGHT + _WARM, _LIGHT, _LIGHT - _WARM], -1).reshape(25, 3)  # of the colour


class Ramp(NamedTuple):
    """Interchangeable ramps: ``tones[name]`` is (len(symbols), 3) uint8 RGB, dark to light."""

    symbols: str
    tones: dict[str, NDArray[np.uint8]]


class Kind(NamedTuple):
    """One subject, and the (colour, item) pairs in and out of the training distribution."""

    class_name: str
    name: str
    shown: tuple[Pair, ...]
    held_out: tuple[Pair, ...]
    groups: tuple[str, ...]  # palette groups that vary, besides the colour

    def factors(self, pairs: tuple[Pair, ...]) -> dict[str, int]:
        """How many choices there are for each part of a sprite with one of ``pairs``."""
        factors = {"pair": len(pairs), "tint": len(TINTS), "shift": SHIFTS}
        factors |= {group: len(PALETTE[group].tones) for group in self.groups}
        return factors | {"facing": len(FACINGS) if self.class_name == "side-facing" else 1}


class Attributes(NamedTuple):
    """What a sprite shows; None where its kind has no such part."""

    class_name: str
    kind: str
    colour: str
    item: str | None = None
    facing: str | None = None
    material: str | None = None
    skin: str | None = None
    hair: str | None = None
    eyes: str | None = None
    leaf: str | None = None
    dough: str | None = None
    glow: str | None = None

    @property
    def caption(self) -> str:
        """Plain English, as "an orange knight with a gold sword facing left"."""
        words = f"{_article(self.colour)} {self.kind}"
        if self.item and self.material:
            words += f" with {_article(self.material)} {self.item}"
        return f"{words} facing {self.facing}" if self.facing else words


def _article(word: str) -> str:
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"


def blocks(name: str, package: str = "unnoise.data.sprites") -> list[tuple[str, list[str]]]:
    """The blocks of an art file that blank lines part: title line and the lines below it."""
    art = resources.files(package) / "art" / f"{name}.txt"
    parts = (block.splitlines() for block in art.read_text("utf-8").strip().split("\n\n"))
    return [(title, lines) for title, *lines in parts]


def _palette() -> dict[str, Ramp]:
    palette = {}
    for title, lines in blocks("palette"):
        group, symbols = title.split()
        ramp = palette[group] = Ramp(symbols, {})
        for name, codes in (line.split(maxsplit=1) for line in lines):
            ramp.tones[name] = np.frombuffer(bytes.fromhex(codes), np.uint8).reshape(-1, 3)
    return palette


def _kinds() -> tuple[Kind, ...]:
    """All kinds, classes in turn; a name holds out one colour or, if an odd carrier, one item."""
    names = list(dict.fromkeys(name for c in CLASSES for name in DRAWINGS[c]))
    turns = zip(*([(c, name) for name in DRAWINGS[c]] for c in CLASSES), strict=True)
    kinds = []
    for class_name, name in chain.from_iterable(turns):
        number, carries = names.index(name), class_name in CARRIERS
        by_item = carries and number % 2
        held = ITEMS[(number // 2 + 1) % 4] if by_item else COLOURS[(3 * number + 5) % 8]
        pairs = tuple(product(COLOURS, ITEMS if carries else (None,)))
        symbols = DRAWINGS[class_name][name] + "".join(DRAWINGS["item"].values()) * carries
        groups = tuple(g for g, ramp in VARYING.items() if set(symbols) & set(ramp.symbols))
        shown = tuple(pair for pair in pairs if held not in pair)
        held_out = tuple(pair for pair in pairs if held in pair)
        kinds.append(Kind(class_name, name, shown, held_out, groups))
    return tuple(kinds)


def _stamps() -> NDArray[np.uint8]:
    """Symbol numbers (K, items + 1, facings, shifts, 256) of each kind with each item or none."""
    symbols = "".join(ramp.symbols for ramp in PALETTE.values())

    def numbers(drawings: Iterable[str]) -> NDArray[np.uint8]:
        return np.array([[symbols.index(s) for s in d] for d in drawings], np.uint8)

    kinds = numbers(DRAWINGS[kind.class_name][kind.name] for kind in KINDS)[:, None]
    items = numbers([*DRAWINGS["item"].values(), "." * 256])
    dressed = np.where(kinds == symbols.index("."), items, kinds).reshape(len(KINDS), -1, 16, 16)
    shifted = np.stack([np.roll(dressed, -shift, -1) for shift in range(SHIFTS)], 2)
    return np.stack([shifted, shifted[..., ::-1]], 2).reshape(*dressed.shape[:2], 2, SHIFTS, 256)


PALETTE = _palette()
COLOURS = tuple(PALETTE["colour"].tones)
VARYING = {g: ramp for g, ramp in PALETTE.items() if g != "colour" and len(ramp.tones) > 1}
DRAWINGS = {f: {name: "".join(rows) for name, rows in blocks(f)} for f in (*CLASSES, "item")}
ITEMS = tuple(DRAWINGS["item"])
KINDS = _kinds()
STAMPS = _stamps()


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
        recognition = import_module("unnoise.data.sprites.recognition")  # which builds on this file
        numbers: torch.Tensor = recognition.combinations(pictures)
        return numbers

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
