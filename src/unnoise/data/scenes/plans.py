"""What a scene shows: groups of like subjects, a relation between them, and what is held out.

A pairing of kind and colour or item, a relation of two kinds and a number of one kind are each held
out by rule: no training or validation scene has them, also not by chance (``layout`` sees to it
that subjects do not stand so).
"""

from collections import Counter
from collections.abc import Iterator
from typing import Literal, NamedTuple

from unnoise.data.scenes.draws import Draws
from unnoise.data.sprites.drawings import FACINGS, KINDS, PALETTE

Relation = Literal["left of", "in front of", "above", "between"]
Novelty = Literal["pairing", "relation", "count"]

NOVELTIES: tuple[Novelty, ...] = ("pairing", "relation", "count")
CAST = tuple(kind for kind in KINDS if kind.name != "cherry")  # which are drawn as a pair
NAMES = tuple(dict.fromkeys(kind.name for kind in CAST))
FLYING = ("bat", "ghost", "fireball", "heart", "star", "lightning bolt")
FLYERS = tuple(k for k, kind in enumerate(CAST) if kind.name in FLYING)
ALONE = (1, 1, 1, 2, 2, 3, 3, 4)  # how many, of a single group
TOGETHER = ((1, 1), (1, 1), (1, 1), (1, 2), (2, 1), (2, 2), (1, 3), (3, 1))  # of two
ORDERED: tuple[Relation, ...] = ("left of", "left of", "in front of", "above")
LARGE = 2  # subjects that there is room for
HELD: dict[Relation, int] = {"left of": 1, "in front of": 3, "above": 5}


class Group(NamedTuple):
    """``number`` subjects of one kind, which differ in skin, hair and the like alone.

    ``cast`` is a number of ``CAST``; None stands for what the kind does not have.
    """

    cast: int
    number: int
    size: Literal["small", "large"]
    colour: str
    item: str | None
    material: str | None
    facing: str | None

    @property
    def kind(self) -> str:
        """As in captions."""
        return CAST[self.cast].name

    @property
    def look(self) -> tuple[int, str | None, str | None]:
        """What decides the drawing, colours aside."""
        return self.cast, self.item, self.facing


class Plan(NamedTuple):
    """The first group is ``relation`` the second; or between the second and the third."""

    groups: tuple[Group, ...]
    relation: Relation | None


def draw_plan(draws: Draws, novelty: Novelty | None = None) -> Plan:
    """A plan with something held out of this sort, and no other; of None with nothing held out."""
    wanted = set() if novelty is None else {novelty}
    while True:
        plan = _any_plan(draws)
        groups = {(group.kind, group.colour) for group in plan.groups}
        if len(groups) == len(plan.groups) and held_out(plan) == wanted:
            return plan


def held_out(plan: Plan) -> set[Novelty]:
    """What sorts of things in the plan are held out."""
    found: set[Novelty] = set()
    if any((g.colour, g.item) in CAST[g.cast].held_out for g in plan.groups):
        found.add("pairing")
    if any(relation_held_out(*each) for each in relations(plan)):
        found.add("relation")
    counts = Counter[str]()
    for group in plan.groups:
        counts[group.kind] += group.number
    if any(count == held_count(kind) for kind, count in counts.items()):
        found.add("count")
    return found


def held_count(kind: str) -> int:
    """The number, 2, 3 or 4, in which a kind is not shown."""
    return 2 + NAMES.index(kind) % 3


def relation_held_out(first: str, relation: Relation, second: str) -> bool:
    """Whether kind ``first`` is never shown in this relation to kind ``second``.

    Of a quarter of all pairs one order is, and never both; so a model may have seen a ghost right
    of a slime, and then has to draw the mirrored scene.
    """
    a, b = NAMES.index(first), NAMES.index(second)
    return a % 7 != b % 7 and (a + 2 * b) % 7 == HELD[relation]


def relations(plan: Plan) -> Iterator[tuple[str, Relation, str]]:
    """The ordered relations of kinds that a plan has."""
    kinds = [group.kind for group in plan.groups]
    if plan.relation == "between":
        middle, left, right = kinds
        yield from ((left, "left of", middle), (middle, "left of", right), (left, "left of", right))
    elif plan.relation is not None:
        yield kinds[0], plan.relation, kinds[1]


def _any_plan(draws: Draws) -> Plan:
    """One, two or three groups; who is above must fly, who is in front is no smaller."""
    groups = draws.choice((1, 1, 1, 2, 2, 2, 2, 2, 3, 3))
    if groups == 1:
        return Plan((_group(draws, draws.choice(ALONE), LARGE),), None)
    if groups == 3:
        return Plan(tuple(_group(draws, 1, k // 2) for k in (2, 0, 1)), "between")
    relation, (first, second) = draws.choice(ORDERED), draws.choice(TOGETHER)
    if relation == "in front of":
        front = _group(draws, first, LARGE)
        return Plan((front, _group(draws, second, LARGE if front.size == "large" else 0)), relation)
    upper = _group(draws, first, LARGE, flies=relation == "above")
    return Plan((upper, _group(draws, second, LARGE)), relation)


def _group(draws: Draws, count: int, room: int, flies: bool = False) -> Group:
    """``count`` of any kind, small where there is no room for as many large ones."""
    cast = draws.choice(FLYERS) if flies else draws.below(len(CAST))
    kind = CAST[cast]
    large = draws.below(2) == 1 and count <= room
    colour, item = draws.choice(kind.shown + kind.held_out)
    return Group(
        *(cast, count, "large" if large else "small", colour, item),
        material=draws.choice(tuple(PALETTE["material"].tones)) if item else None,
        facing=draws.choice(FACINGS) if kind.class_name == "side-facing" else None,
    )
