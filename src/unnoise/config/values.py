"""Type hints as the schema of plain values: what fits, and what to say where a value does not."""

import dataclasses
import functools
import json
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from unnoise.config.problems import Problem, did_you_mean

Location = tuple[int | str, ...]
SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<", "multiple_of": "a multiple of"}
OF_TYPE = ("literal_error", "needs_python_object", "none_required")
"""Pydantic's errors for values of a wrong type whose names do not end in ``_type``."""
WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a string",
    **dict.fromkeys((list, tuple, set, Sequence, Iterable), "a list"),
    **dict.fromkeys((dict, Mapping), "a mapping"),
    Callable: "a function",
    Path: "a path",
}


def _members(hint: Any) -> list[Any]:
    """A union's members, and theirs; any other hint alone. Annotations are taken off."""
    if get_origin(hint) is Annotated:
        return _members(get_args(hint)[0])
    if get_origin(hint) in (Union, types.UnionType):
        return [member for part in get_args(hint) for member in _members(part)]
    return [hint]


def fits(kind: type, hint: Any) -> bool:
    """False only where an instance of ``kind`` is certainly not of the hint's type."""
    for member in _members(hint):
        wanted = get_origin(member) or member
        if wanted is Literal:
            continue
        if wanted is Any or not isinstance(wanted, type) or getattr(wanted, "_is_protocol", False):
            return True
        try:
            if issubclass(kind, wanted):
                return True
        except TypeError:
            return True
    return False


def item_hint(hint: Any, name: int | str) -> Any:
    """The hint of an item of a list or dict, or Any."""
    containers = [member for member in _members(hint) if get_args(member)]
    if len(containers) != 1:
        return Any
    origin, args = get_origin(containers[0]), get_args(containers[0])
    if origin is tuple and args[-1] is not ...:
        return args[name] if isinstance(name, int) and name < len(args) else Any
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return args[-1]
    return args[0] if isinstance(origin, type) and issubclass(origin, Iterable) else Any


def _adapter(hint: Any) -> Any:
    """A pydantic validator of the hint, or None where pydantic cannot make one."""
    from pydantic import ConfigDict, TypeAdapter

    for config in (ConfigDict(arbitrary_types_allowed=True), None):  # some hints bring their own
        with suppress(Exception):
            return TypeAdapter(hint, config=config)
    return None


def _is_object(member: Any) -> bool:
    """Whether only a node can give such a value: a protocol, a dataclass, an ordinary class."""
    if not isinstance(member, type) or member is type(None):
        return False
    if getattr(member, "_is_protocol", False) or dataclasses.is_dataclass(member):
        return True
    adapter = _adapter(member)
    return adapter is not None and adapter.core_schema["type"] in ("is-instance", "named-tuple")


def describe(hint: Any) -> str:
    """A hint in plain words: ``a whole number or 'auto'``."""
    names = []
    for member in _members(hint):
        if get_origin(member) is Literal:
            names += [repr(choice) for choice in get_args(member)]
        elif member is not type(None):
            wanted = get_origin(member) or member
            name = getattr(wanted, "__name__", str(wanted))
            article = "an" if name[:1] in "AEIOUaeiou" else "a"
            names.append(WORDS.get(wanted) or f"{article} {name}")
    names = list(dict.fromkeys(names))
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names or ["null"])


def show(value: Any) -> str:
    """A value as YAML has it, cut short."""
    if isinstance(value, dict):
        return "a mapping"
    words = {None: "null", True: "true", False: "false"}
    text = words[value] if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def value_problems(value: Any, hint: Any, key: str) -> Iterator[Problem]:
    """What pydantic finds wrong with a value without nodes, in plain words."""
    from pydantic import ValidationError

    members = _members(hint)
    if value is None and type(None) in members:
        return
    objects = [_is_object(member) for member in members if member is not type(None)]
    if objects and all(objects):
        yield Problem(key, f"{show(value)} is not {describe(hint)}: give one by its _target_")
        return
    adapter = _adapter(hint)
    if adapter is None:
        return
    try:
        adapter.validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        by_path: dict[Location, list[Any]] = {}
        for detail in error.errors(include_url=False):
            by_path.setdefault(_path(value, detail["loc"]), []).append(detail)
        for path, details in by_path.items():
            deeper = any(other != path and other[: len(path)] == path for other in by_path)
            if not deeper:  # a union complains of the whole too where one member read on
                inner = functools.reduce(lambda tree, step: tree[step], path, value)
                words = _words(inner, functools.reduce(item_hint, path, hint), details)
                yield Problem(".".join([key, *map(str, path)]), words)
    except (TypeError, ValueError):
        return  # not a value that YAML can hold


def _path(value: Any, location: Sequence[int | str]) -> Location:
    """The part of a pydantic location that leads into the value (the rest names union members)."""
    path: Location = ()
    for step in location:
        lists = range(len(value)) if isinstance(value, list) else ()
        if step in (value if isinstance(value, dict) else lists):
            path, value = (*path, step), value[step]
    return path


def _words(value: Any, hint: Any, details: list[Any]) -> str:
    """What pydantic found wrong with one value; several details are a union's alternatives."""
    wrong, types = [], []
    for detail in details:
        context, (phrase, should, rest) = detail.get("ctx", {}), detail["msg"].partition(" should ")
        limits = [(sign, context[name]) for name, sign in SIGNS.items() if name in context]
        if limits:
            wrong += [f"must be {sign} {limit:.12g}, not {show(value)}" for sign, limit in limits]
        elif detail["type"] == "missing":
            name = detail["loc"][-1]
            lack = f"item {name + 1}" if isinstance(name, int) else f"the key '{name}'"
            wrong.append(f"lacks {lack}")
        elif detail["type"] in OF_TYPE or detail["type"].endswith("_type"):
            types.append(rest.removeprefix("be "))
        elif should:
            wrong.append(f"must {rest.replace(' after validation', '')}")
        else:
            wrong.append(phrase[:1].lower() + phrase[1:])
    if wrong:
        return " and ".join(dict.fromkeys(wrong))
    right = " or ".join(types) if Any in _members(hint) else describe(hint)
    literals = [get_args(member) for member in _members(hint) if get_origin(member) is Literal]
    near = did_you_mean(str(value), [str(each) for choices in literals for each in choices])
    return f"{show(value)} is not {right}{near}"
