"""The problems of a configuration, and how they are printed."""

import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal


class _Unknown:
    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN = _Unknown()
"""Stands in a configuration for a value that could not be read and is already reported."""


class ConfigError(Exception):
    """The configuration cannot be used; the message says where and why."""


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a configuration: a dotted ``key`` (or an override) and a message."""

    key: str
    message: str
    severity: Literal["error", "warning"] = "error"

    def __post_init__(self) -> None:
        if not self.key.isprintable():
            object.__setattr__(self, "key", self.key.encode("unicode_escape").decode())

    def __str__(self) -> str:
        return f"{self.key}: {self.message}"


Check = Callable[[dict[str, Any]], list[Problem]]
"""A config to what is wrong with it."""


def errors_in(found: Iterable[Problem]) -> list[Problem]:
    """Those that keep a config from being run."""
    return [problem for problem in found if problem.severity == "error"]


def report(problems: Sequence[Problem]) -> str:
    """All problems, one a line: errors under one heading, then warnings under another."""
    width = min(max((len(p.key) for p in problems), default=0), 32)
    parts = []
    for severity, ending in (("error", "; nothing was run:"), ("warning", ":")):
        lines = [p for p in problems if p.severity == severity]
        if lines:
            noun = "problem" if severity == "error" else "warning"
            plural = "s" if len(lines) > 1 else ""
            parts.append(f"{len(lines)} {noun}{plural} in the configuration{ending}")
            parts += [f"  {p.key:<{width}}  {' '.join(p.message.split())}" for p in lines]
    return "\n".join(parts)


def did_you_mean(name: str, names: Iterable[str], cutoff: float = 0.6) -> str:
    """``; did you mean 'x'?`` for the name most like ``name``, or an empty string."""
    folded = {known.casefold(): known for known in names}
    close = difflib.get_close_matches(name.casefold(), list(folded), n=1, cutoff=cutoff)
    return f"; did you mean '{folded[close[0]]}'?" if close else ""
