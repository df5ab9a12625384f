"""Where scenes play: a wall or sky, a ridge, a floor and props, in tones of the background.

``art/backgrounds.txt`` lists for each background some moods, each of 13 tones: five of the sky or
wall from the top down, three of the ridge in front of it (far, near, edge), five of the floor from
dark to light. ``art/props.txt`` holds drawings in the symbols of the sprites' palette.

A picture is first one of tones, uint8 numbers, and gets its colours in the end.
"""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unnoise.data.scenes.draws import Draws
from unnoise.data.scenes.panoramas import CLEAR, SIDE, WIDTH, Tones, parts, paste
from unnoise.data.sprites.drawings import PALETTE, blocks

SHADE = 32  # added to a tone it is in the shadow
NEAR = 58  # the row from which on props on the floor are drawn twice as large
SHADOW = 150, 150, 170  # of 256 of red, green and blue
PROPS = 64  # the first tone of the props; each of their symbols has one
SYMBOLS = "".join(ramp.symbols for ramp in PALETTE.values())


class Props(NamedTuple):
    """``least`` to ``most`` props among ``names`` in a scene, and where."""

    names: tuple[str, ...]
    at: Literal["air", "top", "wall", "horizon", "floor"]
    least: int
    most: int


class Background(NamedTuple):
    """``where`` follows what a caption names; ``light`` (of 256) falls on all that is there."""

    name: str
    where: str
    light: tuple[int, int, int]
    wall: str
    ridge: str
    floor: str
    ramps: dict[str, tuple[str, ...]]
    props: tuple[Props, ...]


BACKGROUNDS = (
    Background(
        *("meadow", "in a meadow", (256, 256, 250), "sky", "hills", "grass"),
        {"leaf": ("green", "lime"), "colour": ("red", "yellow", "pink", "purple", "blue")},
        (
            Props(("cloud", "wisp"), "air", 1, 3),
            Props(("tree", "bush", "berries"), "horizon", 1, 3),
            Props(("flower", "bloom", "tuft", "flower"), "floor", 4, 9),
        ),
    ),
    Background(
        *("forest", "in a forest at night", (190, 205, 250), "sky", "trees", "grass"),
        {"leaf": ("green", "teal"), "hair": ("black",), "glow": ("lemon", "aqua")},
        (
            Props(("dot", "dot", "dot", "spark"), "air", 5, 9),
            Props(("disc",), "air", 0, 1),
            Props(("pine", "pine", "bush"), "horizon", 2, 4),
            Props(("tuft", "stone", "dot"), "floor", 4, 7),
        ),
    ),
    Background(
        *("cave", "in a cave", (235, 225, 225), "rock", "boulders", "gravel"),
        {"hair": ("black",), "colour": ("orange",), "glow": ("lemon",)},
        (
            Props(("stalagmite",), "top", 2, 4),
            Props(("torch",), "wall", 1, 2),
            Props(("stalagmite", "rock"), "horizon", 1, 3),
            Props(("stone", "skull", "bone", "rock"), "floor", 2, 5),
        ),
    ),
    Background(
        *("beach", "on a beach", (256, 252, 244), "sky", "sea", "sand"),
        {"leaf": ("green", "lime"), "colour": ("pink", "orange", "purple")},
        (
            Props(("cloud", "wisp"), "air", 1, 2),
            Props(("boat",), "wall", 0, 1),
            Props(("palm",), "horizon", 0, 2),
            Props(("shell", "tuft", "shell"), "floor", 2, 5),
        ),
    ),
    Background(
        *("desert", "in a desert", (256, 248, 232), "sky", "dunes", "sand"),
        {"leaf": ("green", "teal"), "hair": ("brown",), "colour": ("yellow", "orange")},
        (
            Props(("sun",), "air", 0, 1),
            Props(("cactus", "rock"), "horizon", 1, 3),
            Props(("stone", "bone", "skull", "tuft"), "floor", 2, 4),
        ),
    ),
    Background(
        *("snowfield", "in the snow", (240, 248, 256), "sky", "peaks", "snow"),
        {"leaf": ("teal", "green"), "hair": ("white",)},
        (
            Props(("dot",), "air", 8, 16),
            Props(("snowy pine", "snowy pine", "rock"), "horizon", 2, 4),
            Props(("stone", "dot", "rock"), "floor", 2, 5),
        ),
    ),
    Background(
        *("castle hall", "in a castle hall", (240, 228, 220), "bricks", "plinth", "tiles"),
        {"hair": ("white", "black"), "colour": ("red", "blue", "purple", "green")},
        (
            Props(("window", "banner", "banner"), "wall", 2, 2),
            Props(("column",), "horizon", 1, 2),
            Props(("chest",), "floor", 0, 1),
        ),
    ),
    Background(
        *("sea floor", "on the sea floor", (205, 232, 250), "water", "boulders", "sand"),
        {"leaf": ("green", "teal", "autumn"), "hair": ("black",), "colour": ("pink", "orange")},
        (
            Props(("bubbles",), "air", 2, 5),
            Props(("seaweed", "coral", "rock", "seaweed"), "horizon", 3, 5),
            Props(("shell", "stone", "seaweed"), "floor", 2, 4),
        ),
    ),
)


def _moods() -> dict[str, list[NDArray[np.uint8]]]:
    """Of each background the colours (PROPS, 3) of its moods: of 13 tones, and in the shadow."""
    found = {}
    for name, lines in blocks("backgrounds", "unnoise.data.scenes"):
        found[name] = [np.zeros((PROPS, 3), np.uint8) for _ in lines]
        for colours, line in zip(found[name], lines, strict=True):
            tones = np.array([[*bytes.fromhex(code)] for code in line.split()[1:]])
            colours[: len(tones)] = tones
            colours[SHADE : SHADE + len(tones)] = tones * SHADOW // 256
    return found


def _props() -> dict[str, tuple[Tones, Tones]]:
    """The drawings (h, w), as tones of the props, for far ones and for near ones."""
    found = {}
    for name, rows in blocks("props", "unnoise.data.scenes"):
        numbers = np.array([[SYMBOLS.index(symbol) for symbol in row] for row in rows])
        art = np.where(numbers, PROPS + numbers, CLEAR).astype(np.uint8)
        found[name] = art, art.repeat(2, 0).repeat(2, 1)
    return found


def lit(tones: NDArray[np.uint8], number: int) -> NDArray[np.uint8]:
    """Tones (…, 3) in the light of background ``number``."""
    return (tones.astype(int) * BACKGROUNDS[number].light // 256).astype(np.uint8)


MOODS = _moods()
ART = _props()
RAMPS = [
    {g: {name: lit(tones, k) for name, tones in ramp.tones.items()} for g, ramp in PALETTE.items()}
    for k in range(len(BACKGROUNDS))
]
"""For each background the sprites' palette, in its light."""


def backdrop(number: int, horizon: int, draws: Draws) -> Tones:
    """Background ``number`` with its props: tones (64, 64)."""
    canvas = np.empty((SIDE, SIDE), np.uint8)
    background, windows = BACKGROUNDS[number], []
    for part in parts(background.wall, background.ridge, background.floor):
        left = draws.below(WIDTH - SIDE)
        window = part[:, left : left + SIDE]
        windows.append(window[:, ::-1] if draws.below(2) else window)
    wall, ridge, floor = windows
    canvas[:horizon] = wall[len(wall) - horizon :]
    canvas[horizon:] = floor[: SIDE - horizon]
    paste(canvas, ridge, horizon - len(ridge), 0)
    for props in background.props:
        _scatter(canvas, props, horizon, draws)
    return canvas


def palette(number: int, draws: Draws) -> list[NDArray[np.uint8]]:
    """The colours (96, 3) of tones, in parts: of a mood, the same in the shadow, of the props."""
    background = BACKGROUNDS[number]
    found = [draws.choice(MOODS[background.name])]
    for group, ramps in RAMPS[number].items():
        found.append(ramps[draws.choice(background.ramps.get(group, tuple(ramps)))])
    return found


def _scatter(canvas: Tones, props: Props, horizon: int, draws: Draws) -> None:
    """Draw some of the props, the far ones first."""
    number = draws.between(props.least, props.most)
    bases = [horizon + draws.between(6, SIDE + 4 - horizon) for _ in range(number)]
    shift = draws.below(SIDE)
    for k, base in enumerate(sorted(bases)):
        near = props.at == "floor" and base > NEAR
        art = ART[draws.choice(props.names)][near]
        art = art[:, ::-1] if draws.below(2) else art
        height, width = art.shape
        left = draws.between(-width // 2, SIDE - width // 2)
        if props.at == "floor":
            top = base - height
        elif props.at == "horizon":
            top = horizon + draws.between(1, 4) - height
        elif props.at == "air":
            top = draws.between(1, max(1, horizon - 8 - height))
        elif props.at == "top":
            art, top = art[::-1], -draws.below(4)
        else:
            left = (shift + k * SIDE // number) % SIDE - width // 2
            top = max(1, horizon - 6 - height)
        paste(canvas, art, top, left)
