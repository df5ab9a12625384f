"""A scene's picture: its backdrop, shadows on the floor, and its subjects, the nearest last.

Shapes: S pixels of a side; a picture is first one of tones (S, S) uint8, see ``backgrounds``.
"""

import functools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from unnoise.data.scenes.backgrounds import (
    BACKGROUNDS,
    PROPS,
    RAMPS,
    SHADE,
    SYMBOLS,
    backdrop,
    lit,
    palette,
)
from unnoise.data.scenes.draws import Draws
from unnoise.data.scenes.layout import Subject, art_of
from unnoise.data.scenes.panoramas import SIDE
from unnoise.data.scenes.plans import Group
from unnoise.data.sprites.drawings import PALETTE, TINTS

SUBJECTS = PROPS + len(SYMBOLS)  # the first tone of the farthest subject
TINTED = [
    {
        name: lit((tones * TINTS[:, None]).round().clip(0, 255), background)
        for name, tones in PALETTE["colour"].tones.items()
    }
    for background in range(len(BACKGROUNDS))
]


def draw(
    background: int,
    horizon: int,
    groups: tuple[Group, ...],
    subjects: tuple[Subject, ...],
    side: int,
    draws: Draws,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The picture in tones (S, S), and the colours (tones, 3) of these."""
    colours = palette(background, draws)
    canvas = backdrop(background, horizon, draws)
    if side > SIDE:
        canvas = canvas.repeat(side // SIDE, 0).repeat(side // SIDE, 1)
    for subject in subjects:
        _shade(canvas, subject)
    tints = [draws.below(len(TINTS)) for _ in groups]
    for number, subject in enumerate(subjects):
        group = groups[subject.group]
        art = art_of(*group.look, subject.scale)
        box = canvas[subject.top :, subject.left :][: subject.height, : subject.width]
        np.add(art, SUBJECTS + number * len(SYMBOLS), out=box, where=art > 0)
        colours += _tones(background, group, tints[subject.group], draws)
    return canvas, np.concatenate(colours)


def _tones(background: int, group: Group, tint: int, draws: Draws) -> Iterator[NDArray[np.uint8]]:
    """The colours (symbols, 3) of one subject, in parts; what its group leaves open is drawn."""
    for name, ramps in RAMPS[background].items():
        if name == "colour":
            yield TINTED[background][group.colour][tint]
        elif name == "material" and group.material is not None:
            yield ramps[group.material]
        else:
            yield draws.choice(list(ramps.values()))


def _shade(canvas: NDArray[np.uint8], subject: Subject) -> None:
    """Put an ellipse of shadow on the floor below a subject; one that flies has a smaller one."""
    flies = subject.top + subject.height < subject.base
    width = subject.width * 2 // 3 if flies else subject.width
    ellipse = _ellipse(width + 2, max(3, width // 4))
    top = subject.base - (ellipse.shape[0] + 1) // 2
    left = subject.left + (subject.width - width) // 2 - 1
    bottom, right = min(top + ellipse.shape[0], len(canvas)), min(left + width + 2, len(canvas))
    floor = canvas[top:bottom, max(left, 0) : right]
    shadow = ellipse[: bottom - top, max(left, 0) - left : right - left]
    np.add(floor, SHADE, out=floor, where=shadow & (floor < SHADE))


@functools.cache
def _ellipse(width: int, height: int) -> NDArray[np.bool_]:
    """Which pixels of a box (height, width) an ellipse fills."""
    y, x = 2 * np.arange(height)[:, None] + 1 - height, 2 * np.arange(width) + 1 - width
    inside: NDArray[np.bool_] = (y * width) ** 2 + (x * height) ** 2 <= (width * height) ** 2
    return inside
