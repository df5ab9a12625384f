"""The art of the sprites: kinds, their drawings as symbols, and the tones of these.

They stand in the folder ``art``: ``palette.txt`` lists groups of ramps (colour, material, skin, …);
the other files hold drawings, each a name and 16 rows of 16 symbols, a symbol being one tone of one
group.

Shapes: K kinds.
"""

from collections.abc import Iterable
from importlib import resources
from itertools import chain, product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Pair = tuple[str, str | None]  # colour and item

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
