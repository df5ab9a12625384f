"""Where the subjects of a plan stand: nearer ones lower in the picture, drawn over farther ones.

Rows and columns are pixels of the picture, from its upper left corner.
"""

import functools
from collections.abc import Iterator
from itertools import combinations, pairwise, permutations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unnoise.data.scenes.draws import Draws
from unnoise.data.scenes.panoramas import HORIZON, SIDE
from unnoise.data.scenes.plans import CAST, FLYING, Plan, Relation, relation_held_out, relations
from unnoise.data.sprites.drawings import FACINGS, ITEMS, KINDS, STAMPS

VISIBLE = 2  # a subject shows at least one in so many of its pixels


class Subject(NamedTuple):
    """One of group ``group``: its box, the row on the floor below it, and pixels per art pixel."""

    group: int
    left: int
    top: int
    width: int
    height: int
    base: int
    scale: int

    @property
    def centre(self) -> float:
        """Its column."""
        return self.left + self.width / 2

    def overlap(self, other: "Subject") -> int:
        """The area common to both boxes."""
        rows = min(self.top + self.height, other.top + other.height) - max(self.top, other.top)
        columns = min(self.left + self.width, other.left + other.width) - max(self.left, other.left)
        return max(0, rows) * max(0, columns)


@functools.cache
def art_of(cast: int, item: str | None, facing: str | None, scale: int) -> NDArray[np.uint8]:
    """The drawing (h, w) of a subject, with 0 where nothing is, else the number of a symbol."""
    number, facings = KINDS.index(CAST[cast]), FACINGS.index(facing or "right")
    art: NDArray[np.uint8] = STAMPS[number, (*ITEMS, None).index(item), facings, 0].reshape(16, 16)
    rows, columns = np.nonzero(art.any(1))[0], np.nonzero(art.any(0))[0]
    cropped = art[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return cropped.repeat(scale, 0).repeat(scale, 1)


@functools.cache
def solid(cast: int, item: str | None, facing: str | None, scale: int) -> int:
    """How many pixels the drawing fills."""
    return int((art_of(cast, item, facing, scale) > 0).sum())


def scales(side: int) -> dict[str, int]:
    """Picture pixels per art pixel of small and large subjects in pictures of this side."""
    return {"small": side // SIDE, "large": side // SIDE + 1}


def place(plan: Plan, side: int, draws: Draws) -> tuple[int, tuple[Subject, ...]] | None:
    """The horizon's row in art pixels, and the subjects from the farthest to the nearest.

    None where there is no room, a subject would hide too much of another, or a relation would be
    seen by chance that is held out.
    """
    horizon = draws.between(*HORIZON)
    rows, columns = _rows(plan, horizon, side, draws), _columns(plan, side, draws)
    if columns is None:
        return None
    subjects = []
    for number, group in enumerate(plan.groups):
        scale = scales(side)[group.size]
        height, width = art_of(*group.look, scale).shape
        for base, left in zip(rows[number], columns[number], strict=True):
            lift = draws.between(3, 7) * scale if group.kind in FLYING else 0
            top = base - height - lift
            subjects.append(Subject(number, left, top, width, height, base, scale))
    if plan.relation == "above":
        ceiling = (
            min(each.top for each in subjects if each.group == 1)
            - draws.between(2, 4) * side // SIDE
        )
        subjects = [
            s if s.group else s._replace(top=ceiling - s.height - draws.below(3)) for s in subjects
        ]
    subjects.sort(key=lambda each: each.base)
    inside = all(s.top >= 0 and s.left >= 0 and s.left + s.width <= side for s in subjects)
    stated = {*relations(plan)}
    if not inside or not _visible(plan, subjects):
        return None
    if any(relation_held_out(*each) and each not in stated for each in _seen(plan, subjects)):
        return None
    return horizon, tuple(subjects)


def _seen(plan: Plan, subjects: list[Subject]) -> Iterator[tuple[str, Relation, str]]:
    """The relations of kinds in a layout, stated or not.

    A group is left of another if the centres of all its subjects are. Of two subjects with columns
    in common, one is above if it flies and its box ends above that of the other; the nearer one is
    in front if the boxes overlap.
    """
    kinds = [group.kind for group in plan.groups]
    centres = [[s.centre for s in subjects if s.group == k] for k in range(len(kinds))]
    for a, b in permutations(range(len(kinds)), 2):
        if max(centres[a]) < min(centres[b]):
            yield kinds[a], "left of", kinds[b]
    for far, near in combinations(subjects, 2):
        if far.group == near.group:
            continue
        if far.overlap(near):
            yield kinds[near.group], "in front of", kinds[far.group]
        for upper, lower in ((far, near), (near, far)):
            apart = abs(upper.centre - lower.centre) * 2 >= upper.width + lower.width
            over = upper.top + upper.height <= lower.top
            if over and not apart and kinds[upper.group] in FLYING:
                yield kinds[upper.group], "above", kinds[lower.group]


def _visible(plan: Plan, subjects: list[Subject]) -> bool:
    """Whether each shows enough, even if all that lies in the boxes in front of it hides it."""
    for number, subject in enumerate(subjects):
        look = plan.groups[subject.group].look
        hidden = sum(subject.overlap(other) for other in subjects[number + 1 :])
        if hidden * VISIBLE > solid(*look, subject.scale):
            return False
    return True


def _rows(plan: Plan, horizon: int, side: int, draws: Draws) -> list[list[int]]:
    """The row below each subject, by group; who is in front stands nearer than all behind."""
    unit, sizes = side // SIDE, [group.size for group in plan.groups]
    levels = []
    for number, size in enumerate(sizes):
        far, near = (horizon + 5, horizon + 14) if "large" in sizes else (horizon + 6, SIDE - 3)
        if size == "large":
            far, near = SIDE - 11, SIDE - 2
        if plan.relation == "in front of":
            far, near = (SIDE - 8, SIDE - 3) if number == 0 else (horizon + 5, horizon + 8)
            if sizes[0] == "small":
                far, near = (far - 10, near) if number == 0 else (far, near + 6)
            if sizes[1] == "large" and number == 1:
                far, near = SIDE - 22, SIDE - 18
        levels.append(draws.between(far * unit, near * unit))
    if plan.relation == "above":
        levels[0] = levels[1]
    return [
        [min(level + draws.between(-2, 2) * unit, side - unit) for _ in range(group.number)]
        for level, group in zip(levels, plan.groups, strict=True)
    ]


def _columns(plan: Plan, side: int, draws: Draws) -> list[list[int]] | None:
    """The left edge of each subject, by group; None where there is no room."""
    widths = [
        [art_of(*group.look, scales(side)[group.size]).shape[1]] * group.number
        for group in plan.groups
    ]
    if plan.relation in ("in front of", "above"):
        below = _row(widths[1], side, draws)
        if below is None:
            return None
        middle = (below[0] + below[-1] + widths[1][0]) // 2 + draws.between(-5, 5) * side // SIDE
        total = sum(widths[0]) + 2 * (len(widths[0]) - 1)
        left = max(1, min(middle - total // 2, side - total - 1))
        return [[left + k * (widths[0][0] + 2) for k in range(len(widths[0]))], below]
    order = (1, 0, 2) if plan.relation == "between" else range(len(widths))
    row = _row([width for number in order for width in widths[number]], side, draws)
    if row is None:
        return None
    found: list[list[int]] = [[] for _ in widths]
    for number in order:
        found[number] = [row.pop(0) for _ in widths[number]]
    return found


def _row(widths: list[int], side: int, draws: Draws) -> list[int] | None:
    """Left edges side by side in order, with gaps at random; close ones overlap by a quarter."""
    free = side - 2 - sum(widths)
    if free >= 0:
        gaps = sorted(draws.below(free + 1) for _ in widths)
    elif -free * 4 > sum(min(pair) for pair in pairwise(widths)):
        return None
    else:
        gaps = [free * k // (len(widths) - 1) for k in range(len(widths))]
    return [1 + gap + sum(widths[:k]) for k, gap in enumerate(gaps)]
