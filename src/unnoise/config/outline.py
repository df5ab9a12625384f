"""Signatures read from source files: to check what is for Lightning without importing it.

Importing Lightning takes several seconds. A callback's or a trainer's parameters, their types and
defaults stand in its file; ``declared`` reads them there.
"""

import ast
import builtins
import functools
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from unnoise.config.nodes import allowed_path, check_home, inside, resolve_target
from unnoise.config.problems import ConfigError, did_you_mean

SLOW = ("lightning", "unnoise.training.callbacks", "unnoise.training.logging")
"""Modules that are read but not imported."""


def declared(path: object) -> Callable[..., Any]:
    """As ``resolve_target``; of ``SLOW`` modules a stand-in with the same signature.

    Raises:
        ConfigError: as ``resolve_target``.
    """
    if "lightning" in sys.modules or not inside(str(path), SLOW):
        return resolve_target(path)
    module, _, name = allowed_path(path).rpartition(".")
    try:
        names = _names(module)
    except FileNotFoundError:
        raise ConfigError(f"there is no module '{module}'") from None
    if name not in names.nodes:
        raise ConfigError(f"{module} has no '{name}'{did_you_mean(name, names.nodes)}")
    return check_home(names[name], str(path))


class Unread:
    """An annotation that is evaluated when it is needed."""

    def __init__(self, node: ast.expr, names: "_Names") -> None:
        self.node, self.names = node, names

    def read(self) -> Any:
        """The type; Any if it cannot be evaluated."""
        try:
            return self.names.evaluate(self.node)
        except Exception:
            return Any


class _Names(dict[str, Any]):
    """The names of a module; each is looked up when it is first asked for."""

    def __init__(self, module: str) -> None:
        super().__init__()
        self.module = module
        self.is_package, text = _source(module)
        self.nodes = dict(_named(ast.parse(text).body))

    def __missing__(self, name: str) -> Any:
        if name not in self.nodes:
            raise KeyError(name)
        self[name] = self.look_up(name, self.nodes[name])
        return self[name]

    def look_up(self, name: str, node: ast.stmt) -> Any:
        match node:
            case ast.ImportFrom():
                parents = self.module.split(".")
                up = node.level - self.is_package
                source = ".".join([*parents[: len(parents) - up], *filter(None, [node.module])])
                source = source if node.level else str(node.module)
                original = next(a.name for a in node.names if name in (a.asname, a.name))
                if inside(source, SLOW):
                    return _names(source)[original]
                return getattr(importlib.import_module(source), original)
            case ast.Import():
                return importlib.import_module(name)
            case ast.ClassDef():
                return self.type_of(node)
            case ast.FunctionDef():
                return self.function_of(node)
            case ast.Assign() | ast.AnnAssign() if node.value is not None:
                return self.evaluate(node.value)
        raise KeyError(name)

    def evaluate(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            node = ast.parse(node.value, mode="eval").body
        code = compile(ast.Expression(node), self.module, "eval")
        return eval(code, {"__builtins__": builtins.__dict__}, self)

    def type_of(self, node: ast.ClassDef) -> type:
        bases = []
        for base in node.bases:
            try:
                bases.append(self.evaluate(base))
            except Exception:  # what cannot be read says nothing of what fits
                continue
        body: dict[str, Any] = {"__module__": self.module}
        for part in node.body:
            if isinstance(part, ast.FunctionDef) and part.name == "__init__":
                body["__signature__"] = self.signature(part, skip=1)
        try:
            return type(node.name, tuple(bases), body)
        except TypeError:
            return type(node.name, (), body)

    def function_of(self, node: ast.FunctionDef) -> Callable[..., Any]:
        def stand_in() -> None:
            raise TypeError(f"{node.name} was not imported")

        stand_in.__name__ = stand_in.__qualname__ = node.name
        stand_in.__module__ = self.module
        vars(stand_in)["__signature__"] = self.signature(node)
        return stand_in

    def signature(self, node: ast.FunctionDef, skip: int = 0) -> inspect.Signature:
        kinds, of = inspect.Parameter, node.args
        named = [*of.posonlyargs, *of.args]
        defaults: list[ast.expr | None] = [*[None] * (len(named) - len(of.defaults)), *of.defaults]
        found = [
            self.parameter(arg, kinds.POSITIONAL_OR_KEYWORD, default)
            for arg, default in zip(named[skip:], defaults[skip:], strict=True)
        ]
        found += [self.parameter(of.vararg, kinds.VAR_POSITIONAL)] if of.vararg else []
        found += [
            self.parameter(arg, kinds.KEYWORD_ONLY, default)
            for arg, default in zip(of.kwonlyargs, of.kw_defaults, strict=True)
        ]
        found += [self.parameter(of.kwarg, kinds.VAR_KEYWORD)] if of.kwarg else []
        returns = Unread(node.returns, self) if node.returns else inspect.Signature.empty
        return inspect.Signature(found, return_annotation=returns)

    def parameter(
        self, arg: ast.arg, kind: Any, default: ast.expr | None = None
    ) -> inspect.Parameter:
        empty = inspect.Parameter.empty
        return inspect.Parameter(
            arg.arg,
            kind,
            default=empty if default is None else self.default(default),
            annotation=Unread(arg.annotation, self) if arg.annotation else empty,
        )

    def default(self, node: ast.expr) -> Any:
        try:
            return self.evaluate(node) if not isinstance(node, ast.Constant) else node.value
        except Exception:
            return Unread(node, self)


@functools.cache
def _names(module: str) -> _Names:
    return _Names(module)


def _source(module: str) -> tuple[bool, str]:
    """Whether a module is a package, and its text."""
    top, *parts = module.split(".")
    spec = find_spec(top)  # the top alone: more would import it
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(module)
    path = Path(spec.submodule_search_locations[0], *parts)
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return path.is_dir(), file.read_text(encoding="utf-8")


def _named(body: list[ast.stmt]) -> Iterator[tuple[str, ast.stmt]]:
    """The statements of a module that give a name its meaning."""
    for node in body:
        match node:
            case ast.If() | ast.Try():
                yield from _named(node.body)
            case ast.Import() | ast.ImportFrom():
                yield from ((alias.asname or alias.name, node) for alias in node.names)
            case ast.ClassDef() | ast.FunctionDef():
                yield node.name, node
            case ast.Assign():
                yield from ((t.id, node) for t in node.targets if isinstance(t, ast.Name))
            case ast.AnnAssign() if isinstance(node.target, ast.Name):
                yield node.target.id, node
