"""Whether a picture shows what a scene says: background, kinds, colours, numbers, items, relation.

Each by itself: the colours, numbers and items are those of subjects of the kinds that the
scene names, whatever else the picture shows; it is for the kinds to say that nothing else is there.
An item can be hidden: it is enough if one of a kind is seen with it, and none with another.
"""

from collections.abc import Sequence
from typing import Protocol

from unnoise.data.scenes.captions import states_relation
from unnoise.data.scenes.plans import Group, Relation
from unnoise.data.scenes.recognition import Recognised, Subject

ATTRIBUTES = ("background", "kind", "colour", "number", "item", "relation", "all")


class Says(Protocol):
    """What a scene says, as far as a picture can agree with it."""

    @property
    def background(self) -> str: ...  # noqa: D102
    @property
    def groups(self) -> tuple[Group, ...]: ...  # noqa: D102
    @property
    def relation(self) -> Relation | None: ...  # noqa: D102
    @property
    def caption(self) -> str: ...  # noqa: D102


def agreement(seen: Recognised, says: Says) -> dict[str, bool]:
    """Which of a scene's attributes the picture shows, without those that it says nothing of.

    A relation counts where the caption states it. "all" is whether all agree.
    """
    kinds = {group.kind for group in says.groups}
    shown = [subject for subject in seen.subjects if subject.kind in kinds]
    found = {
        "background": seen.background == says.background,
        "kind": {subject.kind for subject in seen.subjects} == kinds,
        "colour": {(s.kind, s.colour) for s in shown} == {(g.kind, g.colour) for g in says.groups},
        "number": sorted(s.kind for s in shown)
        == sorted(g.kind for g in says.groups for _ in range(g.number)),
    }
    if carried := {(g.kind, g.item) for g in says.groups if g.item}:
        found["item"] = {(s.kind, s.item) for s in shown if s.item} == carried
    if says.relation is not None and states_relation(says.caption):
        groups = [
            [s for s in shown if (s.kind, s.colour) == (g.kind, g.colour)] for g in says.groups
        ]
        found["relation"] = all(groups) and related(says.relation, groups)
    return found | {"all": all(found.values())}


def related(relation: Relation, groups: Sequence[Sequence[Subject]]) -> bool:
    """Whether the first group stands so to the second, or between the others; none is empty.

    A group is left of another if all its centres are. It is in front if it ends lower in the
    picture, and above if it ends before the other begins, both with columns in common.
    """
    if relation == "between":
        middle, one, other = groups
        return any(_left(a, middle) and _left(middle, b) for a, b in ((one, other), (other, one)))
    first, second = groups
    if relation == "left of":
        return _left(first, second)
    starts, ends = zip(*((min(s.left for s in group), max(s.left + s.width for s in group))
                         for group in groups), strict=True)  # fmt: skip
    if max(starts) >= min(ends):
        return False
    if relation == "above":
        return _bottom(first) <= min(s.top for s in second)
    return _bottom(first) > _bottom(second)


def _left(group: Sequence[Subject], other: Sequence[Subject]) -> bool:
    return max(s.left + s.width / 2 for s in group) < min(s.left + s.width / 2 for s in other)


def _bottom(group: Sequence[Subject]) -> int:
    return max(s.top + s.height for s in group)
