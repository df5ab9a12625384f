"""The parts of a background, drawn once from a fixed seed, of which a scene shows a window.

Shapes: H × W pixels of a panorama; tones are uint8 numbers, ``CLEAR`` where nothing is.
"""

import functools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from unnoise.data.scenes.draws import Draws, key_of

Tones = NDArray[np.uint8]

SIDE = 64  # of a scene, in pixels of its art
WIDTH = 512  # of a panorama
HORIZON = 24, 29  # least and greatest row of the floor's far end
SKY, RIDGE, FLOOR = 0, 5, 8  # the first tones of each part
CLEAR = 255
BAYER = np.array([[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]])


@functools.cache
def parts(wall: str, ridge: str, floor: str) -> tuple[Tones, Tones, Tones]:
    """Wall (HORIZON[1], W), ridge (h, W) and floor (64 − HORIZON[0], W) of these names."""
    draws = Draws(key_of(*f"{wall} {ridge} {floor}".encode()), 0, 0)
    upper, lower = WALLS[wall](HORIZON[1], draws), FLOORS[floor](SIDE - HORIZON[0], draws)
    return upper, RIDGES[ridge](draws), lower


def paste(canvas: Tones, art: Tones, top: int, left: int) -> None:
    """Draw what of ``art`` lies on the canvas."""
    y, x = max(0, -top), max(0, -left)
    part = art[y : max(0, canvas.shape[0] - top), x : max(0, canvas.shape[1] - left)]
    place = canvas[top + y : top + y + part.shape[0], left + x : left + x + part.shape[1]]
    np.copyto(place, part, where=part != CLEAR)


def _noise(draws: Draws, height: int, width: int, cell: tuple[int, int]) -> NDArray[np.int64]:
    """Smooth noise 0 … 255: random values at the corners of cells, linear between them."""
    down, across = (-(-side // step) + 1 for side, step in zip((height, width), cell, strict=True))
    corners = np.array([draws.below(256) for _ in range(down * across)]).reshape(down, across)
    y, x = np.arange(height)[:, None], np.arange(width)
    (row, dy), (column, dx) = np.divmod(y, cell[0]), np.divmod(x, cell[1])
    upper = corners[row, column] * (cell[1] - dx) + corners[row, column + 1] * dx
    lower = corners[row + 1, column] * (cell[1] - dx) + corners[row + 1, column + 1] * dx
    noise: NDArray[np.int64] = (upper * (cell[0] - dy) + lower * dy) // (cell[0] * cell[1])
    return noise


def _dithered(levels: NDArray[np.int64], tones: int, first: int) -> Tones:
    """Levels 0 … 255 as ``tones`` tones from ``first`` on, in between by an ordered dither."""
    height, width = levels.shape
    rank = np.tile(BAYER, (-(-height // 4), -(-width // 4)))[:height, :width]
    found: Tones = (first + (levels * (tones - 1) * 16 // 256 + rank) // 16).astype(np.uint8)
    return found


def _below(profile: NDArray[np.int64], height: int, tone: int, edge: int) -> Tones:
    """A silhouette (height, W) that is ``profile`` (W,) high, its upper edge in another tone."""
    up = height - np.arange(height)[:, None]
    filled = np.where(up <= profile, tone, CLEAR)
    return np.where((up == profile) & (profile > 0), edge, filled).astype(np.uint8)


def _gradient(height: int, draws: Draws) -> Tones:
    rows = np.arange(height)[:, None] * 255 // (height - 1)
    return _dithered(np.broadcast_to(rows, (height, WIDTH)), 5, SKY)


def _water(height: int, draws: Draws) -> Tones:
    """Lighter above, with slanting shafts of light."""
    rows = 255 - np.arange(height)[:, None] * 255 // height
    shafts = _noise(draws, 1, WIDTH + height, (1, 5))[0]
    slanted = shafts[np.arange(WIDTH) + np.arange(height)[:, None]]
    return _dithered((rows * 3 + np.where(slanted > 150, rows, 0)) // 4, 5, SKY)


def _rock(height: int, draws: Draws) -> Tones:
    coarse, fine = (_noise(draws, height, WIDTH, cell) for cell in ((7, 10), (2, 4)))
    return _dithered(
        (coarse * 3 + fine) // 4 * (96 + 5 * np.arange(height)[:, None]) // 256, 5, SKY
    )


def _bricks(height: int, draws: Draws) -> Tones:
    y, x = np.arange(height)[:, None], np.arange(WIDTH)
    row, shifted = y // 5, x + y // 5 * 5
    faces = np.array([draws.below(3) for _ in range(1024)])[(row * 57 + shifted // 10) % 1024]
    mortar = (y % 5 == 4) | (shifted % 10 == 9)
    lit = (y % 5 == 0) & (shifted % 10 < 8)
    return np.where(mortar, SKY, SKY + 1 + faces // 2 + lit).astype(np.uint8)


def _hills(draws: Draws) -> Tones:
    far, near = (_noise(draws, 1, WIDTH, (1, cell))[0] for cell in (23, 14))
    ridge = _below(4 + far // 28, 16, RIDGE, RIDGE + 1)
    paste(ridge, _below(1 + near // 40, 16, RIDGE + 1, RIDGE + 2), 0, 0)
    return ridge


def _dunes(draws: Draws) -> Tones:
    far, near = (_noise(draws, 1, WIDTH, (1, cell))[0] for cell in (19, 27))
    ridge = _below(2 + far // 30, 14, RIDGE, RIDGE + 1)
    paste(ridge, _below(near // 40, 14, RIDGE + 1, RIDGE + 2), 0, 0)
    return ridge


def _peaks(draws: Draws) -> Tones:
    """Mountains of two slopes, white above."""
    profile, left = np.zeros(WIDTH, np.int64), 0
    x = np.arange(WIDTH)
    while left < WIDTH + 16:
        profile = np.maximum(profile, draws.between(9, 17) - np.abs(x - left) * 2 // 3)
        left += draws.between(9, 19)
    ridge = _below(profile, 18, RIDGE, RIDGE + 2)
    up = 18 - np.arange(18)[:, None]
    rough = _noise(draws, 18, WIDTH, (1, 2)) // 90
    snow = (up <= profile) & (up > np.maximum(profile - 3 - rough, 8))
    return np.where(snow, RIDGE + 2, ridge).astype(np.uint8)


def _trees(draws: Draws) -> Tones:
    """A line of pines in the distance."""
    x, layers = np.arange(WIDTH), []
    for low, high, tone in ((9, 16, RIDGE + 1), (5, 11, RIDGE)):
        profile, left = np.full(WIDTH, 3), 0
        while left < WIDTH + 8:
            slope = draws.between(low, high) - np.abs(x - left) * 2
            profile = np.maximum(profile, slope + (slope % 4 == 1))
            left += draws.between(3, 7)
        layers.append(_below(profile, 18, tone, tone))
    paste(layers[0], layers[1], 0, 0)
    return layers[0]


def _boulders(draws: Draws) -> Tones:
    far, near = (_noise(draws, 1, WIDTH, (1, cell))[0] for cell in (6, 9))
    ridge = _below(3 + far // 36, 12, RIDGE + 1, RIDGE + 2)
    paste(ridge, _below(near // 60, 12, RIDGE, RIDGE + 1), 0, 0)
    return ridge


def _sea(draws: Draws) -> Tones:
    """Water up to the beach, with crests of waves and foam at its edge."""
    ridge = np.full((13, WIDTH), RIDGE, np.uint8)
    ridge[7:] = RIDGE + 1
    crests = _noise(draws, 13, WIDTH, (1, 5)) > 175
    ridge[:7][crests[:7]], ridge[7:][crests[7:]] = RIDGE + 1, RIDGE + 2
    foam = _noise(draws, 1, WIDTH, (1, 7))[0] > 100
    ridge[-1], ridge[-2, foam] = RIDGE + 2, RIDGE + 2
    return ridge


def _plinth(draws: Draws) -> Tones:
    ridge = np.full((3, WIDTH), RIDGE + 1, np.uint8)
    ridge[0], ridge[-1] = RIDGE + 2, RIDGE
    return ridge


def _ground(height: int, draws: Draws, cell: tuple[int, int], marks: int) -> Tones:
    """Dithered noise of three tones, with ``marks`` of 256 pixels dark below a light one."""
    floor = _dithered(_noise(draws, height, WIDTH, cell), 3, FLOOR + 1)
    spots = np.array([draws.below(256) < marks for _ in range(height * WIDTH)])
    y, x = np.nonzero(spots.reshape(height, WIDTH)[:-1])
    floor[y + 1, x], floor[y, x] = FLOOR, FLOOR + 4
    return floor


def _tiles(height: int, draws: Draws) -> Tones:
    """A chequered floor seen from above its near end: rows get higher towards it."""
    row = np.array([3 * y * 48 // (y + 48) // 8 for y in range(height)])
    x = np.arange(WIDTH)
    light = (row[:, None] + x // 8) % 2
    floor = FLOOR + 1 + light * 2
    joint = np.diff(row, prepend=-1)[:, None] > 0
    return np.where(joint, floor + 1, floor).astype(np.uint8)


Panorama = Callable[[int, Draws], Tones]
WALLS: dict[str, Panorama] = {
    "sky": _gradient,
    "water": _water,
    "rock": _rock,
    "bricks": _bricks,
}
RIDGES: dict[str, Callable[[Draws], Tones]] = {
    "hills": _hills,
    "dunes": _dunes,
    "peaks": _peaks,
    "trees": _trees,
    "boulders": _boulders,
    "sea": _sea,
    "plinth": _plinth,
}
FLOORS: dict[str, Panorama] = {
    "grass": functools.partial(_ground, cell=(3, 9), marks=9),
    "sand": functools.partial(_ground, cell=(2, 13), marks=2),
    "snow": functools.partial(_ground, cell=(4, 16), marks=2),
    "gravel": functools.partial(_ground, cell=(3, 6), marks=6),
    "tiles": _tiles,
}
