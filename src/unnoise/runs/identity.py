"""Which run a configuration stands for, from plain containers.

A config is a tree of dicts and lists in which a dict with ``_target_`` stands for an object. What a
key decides (its ``Role``) and its default stand in the signature of the target. A value at its
default counts as if it were not there, so that a run keeps its identity when its target gets a
further argument.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

VERSION = 1
"""Of the digests: to be raised where the same config is to give another."""


class Role(Enum):
    """What a key decides. A key without a role has that of its parent; the outermost, TRAINED."""

    TRAINED = "what is trained: a run is resumed with the same values only"
    SHOWN = "what a run draws and logs, and rounding: another run, but resumed with other values"
    MACHINE = "where and how fast it runs: the same run on another machine"
    NAME = "what it is called and compared by: the same run, but another sweep"
    CALL = "what is done this time"


@dataclass(frozen=True)
class Spelling:
    """Beside a type, that some of its values mean the same: ``of`` maps them to one, plain."""

    of: Callable[[Any], Any] = lambda value: value


@dataclass(frozen=True)
class Argument:
    """What a target's signature says of one of its arguments; ``default`` ... if there is none."""

    default: Any = ...
    role: Role | None = None
    spelling: Spelling = Spelling()


Arguments = Callable[[object], Mapping[str, Argument]]
"""The arguments of what a ``_target_`` names; empty where it has no signature."""


@dataclass(frozen=True)
class Value:
    """A value of a config, in canonical form: 1 for 1.0, and lists for tuples."""

    value: Any
    role: Role
    is_default: bool


def leaves(tree: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Each value of a config with its dotted key; a list is one value."""
    if isinstance(tree, Mapping) and tree:
        for name, value in tree.items():
            yield from leaves(value, f"{key}.{name}" if key else str(name))
    elif key:
        yield key, tree


def values(config: Mapping[str, Any], arguments: Arguments) -> dict[str, Value]:
    """All values of a config by their dotted keys; a list is one value.

    Raises:
        TypeError: it is not a mapping.
    """
    if not isinstance(config, Mapping):
        raise TypeError(f"a config is a mapping, not a {type(config).__name__}")
    return dict(_values(config, arguments, "", Role.TRAINED, False))


def _values(
    tree: Any, arguments: Arguments, key: str, role: Role, is_default: bool
) -> Iterator[tuple[str, Value]]:
    if not isinstance(tree, Mapping):
        yield key, Value(canonical(tree, arguments), role, is_default)
        return
    signature = arguments(tree["_target_"]) if "_target_" in tree else {}
    for name, value in tree.items():
        of = signature.get(name, Argument())
        value = of.spelling.of(value)
        same = is_default or canonical(value, arguments) == canonical(of.default, arguments)
        inner = f"{key}.{name}" if key else str(name)
        yield from _values(value, arguments, inner, of.role or role, same)


def canonical(tree: Any, arguments: Arguments) -> Any:
    """A config with 1 for 1.0, lists for tuples, and without values at their defaults."""
    if isinstance(tree, Mapping):
        signature = arguments(tree["_target_"]) if "_target_" in tree else {}
        plain = {}
        for key, value in tree.items():
            of = signature.get(key, Argument())
            plain[str(key)] = canonical(of.spelling.of(value), arguments)
            if plain[str(key)] == canonical(of.default, arguments):
                del plain[str(key)]
        return plain
    if isinstance(tree, list | tuple):
        return [canonical(value, arguments) for value in tree]
    return int(tree) if isinstance(tree, float) and tree.is_integer() else tree


def identity(config: Mapping[str, Any], arguments: Arguments) -> str:
    """The digests that a run directory is named by: of what is trained, and of what is shown."""
    found = values(config, arguments)
    parts = (
        {k: each.value for k, each in found.items() if each.role == role and not each.is_default}
        for role in (Role.TRAINED, Role.SHOWN)
    )
    return "-".join(digest(part, 8) for part in parts)


def differences(
    then: Mapping[str, Any], now: Mapping[str, Any], arguments: Arguments
) -> dict[str, tuple[Any, Any]]:
    """What is trained differently under two configs: dotted key to both values."""
    found = [
        {k: v for k, v in values(config, arguments).items() if v.role == Role.TRAINED}
        for config in (then, now)
    ]
    different, absent = {}, Value(None, Role.TRAINED, is_default=True)
    for key in sorted(found[0].keys() | found[1].keys()):
        one, two = (each.get(key, absent) for each in found)
        same = one is not absent and two is not absent and one.value == two.value
        if not same and not (one.is_default and two.is_default):
            different[key] = (one.value, two.value)
    return different


def digest(content: Any, length: int) -> str:
    """The first hexadecimal digits of the SHA-256 of plain containers and ``VERSION``."""
    text = json.dumps([VERSION, content], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:length]
