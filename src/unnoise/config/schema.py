"""The check of a whole configuration before any compute: signatures are the schema."""

import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, get_origin

from unnoise.config.nodes import RESERVED, instantiate, resolve_target
from unnoise.config.problems import UNKNOWN, ConfigError, Problem, did_you_mean
from unnoise.config.values import describe, fits, item_hint, show, value_problems
from unnoise.runs.identity import Argument, Role, Spelling


def problems(config: Mapping[str, Any], schema: Callable[..., Any]) -> list[Problem]:
    """All that is wrong with a plain, resolved configuration, found in one pass.

    ``schema`` is a function or dataclass with one parameter for each key of the root. The keys of
    a node are compared with the parameters of its target, values strictly with type hints,
    ``Annotated[..., Field(ge=...)]`` ranges included, by the rules of JSON: a list will do for a
    tuple or sequence, an int for a float, a string for a Path.
    Hints that cannot be evaluated are not checked.
    """
    return list(_arguments(config, schema, key=""))


def parameters(target: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """What may be given to a target by name."""
    return {
        name: parameter
        for name, parameter in _signature(target).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }


def arguments(path: object) -> dict[str, Argument]:
    """What the signature of a ``_target_`` says of its arguments; nothing if it has none."""
    try:
        return _arguments_of(resolve_target(path))
    except ConfigError:
        return {}


@functools.cache
def _arguments_of(target: Callable[..., Any]) -> dict[str, Argument]:
    found = {}
    for name, notes in notes_of(target).items():
        default = parameters(target)[name].default
        role = next((note for note in notes if isinstance(note, Role)), None)
        spelling = next((note for note in notes if isinstance(note, Spelling)), Spelling())
        default = ... if default is inspect.Parameter.empty else default
        found[name] = Argument(default, role, spelling)
    return found


def notes_of(target: Callable[..., Any]) -> dict[str, tuple[Any, ...]]:
    """What is annotated beside the type of each parameter."""
    return {
        name: getattr(_hint(each.annotation, target), "__metadata__", ())
        for name, each in parameters(target).items()
    }


def built(
    config: Mapping[str, Any],
    names: Iterable[str],
    device: str = "meta",
    wrong: Iterable[Problem] = (),
) -> tuple[dict[str, Any], list[Problem]]:
    """Build the nodes ``names`` of the root on ``device``, but for those with something ``wrong``.

    The meta device makes networks of any size cost nothing; objects that look at the values of
    their own tensors need "cpu".

    Returns:
        The objects, with UNKNOWN for what cannot be built, and what constructors object to.
    """
    import torch

    found = [*wrong]
    before = len(found)
    with torch.device(device):
        objects = {name: _build(config.get(name), name, found) for name in names}
    return objects, found[before:]


def _build(node: Any, key: str, found: list[Problem]) -> Any:
    """``instantiate(node)``; a node that cannot be built is reported under its own key."""
    if not isinstance(node, dict | list):
        return node
    built = {name: _build(item, _join(key, name), found) for name, item in _items(node)}
    if isinstance(node, list):
        return list(built.values())
    if "_target_" not in node:
        return built
    if any(f"{problem.key}.".startswith(f"{key}.") for problem in found):
        return UNKNOWN
    if any(value is UNKNOWN for value in built.values()):
        return UNKNOWN
    try:
        return instantiate(built)
    except (ValueError, ConfigError) as error:
        found.append(Problem(key, str(error)))
    except Exception as error:
        found.append(Problem(key, f"cannot be built: {type(error).__name__}: {error}"))
    return UNKNOWN


def _join(key: str, name: object) -> str:
    return f"{key}.{name}" if key else str(name)


def _items(container: dict[Any, Any] | list[Any]) -> Iterable[tuple[Any, Any]]:
    return container.items() if isinstance(container, dict) else enumerate(container)


def _arguments(
    values: Mapping[str, Any], target: Callable[..., Any], key: str, partial: bool = False
) -> Iterator[Problem]:
    """Arguments by name, compared with the signature of their target."""
    named = parameters(target)
    open_ended = any(p.kind is p.VAR_KEYWORD for p in _signature(target).parameters.values())
    who = getattr(target, "__name__", str(target)) if key else "the configuration"
    for name, value in values.items():
        if name in named:
            yield from _value(value, _hint(named[name].annotation, target), _join(key, name))
            continue
        if not open_ended:
            near = did_you_mean(str(name), named)
            takes = near or f"; {who} takes {', '.join(named) or 'nothing'}"
            yield Problem(_join(key, name), f"unknown key{takes}")
        yield from _value(value, Any, _join(key, name))
    for name, parameter in named.items():
        if parameter.default is parameter.empty and name not in values and not partial:
            full = _join(key, name)
            yield Problem(full, f"missing: {who} needs it; give it as +{full}=...")


def _signature(target: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(target)
    except (TypeError, ValueError):  # some classes written in C have none: anything goes
        return inspect.signature(lambda **_: None)


def _hint(annotation: Any, target: Callable[..., Any]) -> Any:
    """An annotation in a target's signature as a type; Any if empty or not to be evaluated."""
    if annotation is inspect.Parameter.empty:
        return Any
    function = inspect.unwrap(target.__init__ if inspect.isclass(target) else target)
    holder = types.SimpleNamespace(__annotations__={"it": annotation})
    try:
        scope = getattr(function, "__globals__", {})
        return typing.get_type_hints(holder, scope, include_extras=True)["it"]
    except Exception:
        return Any


def _value(value: Any, hint: Any, key: str) -> Iterator[Problem]:
    if value is UNKNOWN:
        return
    if isinstance(value, str) and value == "???":
        yield Problem(key, f"missing: give it as {key}=...")
    elif isinstance(value, dict) and "_target_" in value:
        yield from _node(value, hint, key)
    elif not _holds_nodes(value):
        yield from value_problems(value, hint, key)
    else:
        kinds = (list, tuple) if isinstance(value, list) else (dict,)
        if not any(fits(kind, hint) for kind in kinds):
            yield Problem(key, f"{show(value)} is not {describe(hint)}")
        for name, item in _items(value):
            yield from _value(item, item_hint(hint, name), _join(key, name))


def _holds_nodes(value: Any) -> bool:
    if isinstance(value, dict | list):
        return "_target_" in value or any(_holds_nodes(item) for _, item in _items(value))
    return value is UNKNOWN or (isinstance(value, str) and value == "???")


def _node(node: dict[str, Any], hint: Any, key: str) -> Iterator[Problem]:
    arguments = {name: item for name, item in node.items() if name not in RESERVED}
    partial = node.get("_partial_", False)
    if not isinstance(partial, bool):
        yield Problem(f"{key}._partial_", f"{show(partial)} is not true or false")
    for name in [name for name in arguments if str(name).startswith("_")]:
        yield Problem(f"{key}.{name}", f"unknown key{did_you_mean(str(name), RESERVED)}")
        del arguments[name]
    try:
        target = resolve_target(node["_target_"])
    except ConfigError as error:
        if unresolved := [*_value(node["_target_"], Any, f"{key}._target_")]:
            yield from unresolved
        elif node["_target_"] is not UNKNOWN:
            yield Problem(f"{key}._target_", str(error))
        for name, item in arguments.items():
            yield from _value(item, Any, _join(key, name))
        return
    if inspect.isabstract(target) or getattr(target, "_is_protocol", False):
        yield Problem(f"{key}._target_", f"{target.__name__} is abstract: name a subclass")
    returned = _signature(target).return_annotation
    made = target if inspect.isclass(target) else _hint(returned, target)
    made = get_origin(made) or made
    if partial is False and isinstance(made, type) and made is not Any and not fits(made, hint):
        yield Problem(key, f"{target.__name__} makes {describe(made)}, not {describe(hint)}")
    yield from _arguments(arguments, target, key, partial is True)
