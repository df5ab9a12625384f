"""Scenes in plain English: "a red knight with a gold sword left of two blue slimes in a cave".

A caption names every group with its number, kind, colour and item, and the background. It may leave
out size, material, facing, and how the groups stand to each other; what it says is true.
"""

from itertools import chain

from unnoise.data.scenes.draws import Draws
from unnoise.data.scenes.plans import Group, Plan

NUMBERS = ("", "", "two", "three", "four")
PLURALS = {"princess": "princesses", "fish": "fish"}
PHRASES = {
    "left of": (("left of", "to the left of"), ("right of", "to the right of")),
    "in front of": (("in front of",), ("behind",)),
    "above": (("above",), ("below",)),
}


def caption(plan: Plan, where: str, place: str | None, draws: Draws) -> str:
    """One of many wordings; ``place`` is that of a single subject, as "on the left"."""
    named = [_named(group, draws) for group in plan.groups]
    verb = "is" if plan.groups[0].number == 1 else "are"
    first = named[0]
    if plan.relation is None:
        there = f"{first} {place}" if place and draws.below(3) == 0 else first
        forms = (
            f"{there} {where}",
            f"{there} {where}",
            f"{where}, {there}",
            f"{where} {verb} {there}",
        )
        return draws.choice(forms)
    if draws.below(4) == 0:
        *others, last = named
        return f"{', '.join(others)} and {last} {where}"
    if plan.relation == "between":
        sides = named[1:] if draws.below(2) else named[:0:-1]
        phrase, rest = "between", " and ".join(sides)
    else:
        inverse = draws.below(2)
        phrase = draws.choice(PHRASES[plan.relation][inverse])
        first, rest = named[:: -1 if inverse else 1]
        verb = "is" if plan.groups[inverse].number == 1 else "are"
    if draws.below(3) == 0:
        return f"{where}, {first} {verb} {phrase} {rest}"
    return f"{first} {phrase} {rest} {where}"


def states_relation(words: str) -> bool:
    """Whether a caption says how its groups stand to each other."""
    phrases = chain.from_iterable(chain.from_iterable(PHRASES.values()))
    return any(f" {phrase} " in words for phrase in (*phrases, "between"))


def _named(group: Group, draws: Draws) -> str:
    """As "two small red knights with gold swords facing left"."""
    size, material, facing = (draws.below(3) == 0 for _ in range(3))
    words = f"{group.size} {group.colour}" if size else group.colour
    words = _counted(f"{words} {group.kind}", group.number)
    if group.item is not None:
        item = f"{group.material} {group.item}" if material else group.item
        words += f" with {_counted(item, 1) if group.number == 1 else _plural(item)}"
    return f"{words} facing {group.facing}" if group.facing and facing else words


def _counted(words: str, count: int) -> str:
    if count > 1:
        return f"{NUMBERS[count]} {_plural(words)}"
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def _plural(words: str) -> str:
    *before, noun = words.split(" ")
    return " ".join((*before, PLURALS.get(noun, f"{noun}s")))
