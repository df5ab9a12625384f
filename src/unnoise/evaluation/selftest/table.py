"""The outcomes for a terminal of 100 columns, and as plain values."""

import math
from collections.abc import Mapping, Sequence
from typing import Any
from unicodedata import combining

from unnoise.evaluation.selftest.check import Outcome

WIDTHS = (50, 12, 12, 9)  # of name, got, expected and tolerance
HEAD = ("check", "got", "expected", "tolerance")


def heading() -> str:
    """Above the rows."""
    return _line(HEAD, "verdict")


def row(outcome: Outcome) -> str:
    """One check in a line."""
    name, result = f"  {outcome.check.name}", outcome.result
    verdict = "pass" if outcome.passed else "FAIL"
    if result is None:
        return _line((name, "error", "", ""), verdict)
    numbers = _number(result.got), _number(result.expected), f"{result.tolerance:.2g}"
    return _line((name, *numbers), verdict)


def summary(
    found: Sequence[Outcome], versions: Mapping[str, str], hardware: Mapping[str, str]
) -> str:
    """How many passed, what did not and why that was expected, and where this holds."""
    seconds = sum(outcome.seconds for outcome in found)
    failed = [outcome for outcome in found if not outcome.passed]
    lines = [
        f"{len(failed)} of {len(found)} checks failed ({seconds:.0f} s):"
        if failed
        else f"All {len(found)} checks passed ({seconds:.0f} s)."
    ]
    for outcome in failed:
        check = outcome.check
        lines.append(f"  {check.group}: {check.name}")
        lines.append(f"    expected by: {check.source}")
        if outcome.error is not None:
            lines.append(f"    {outcome.error}"[:100])
    lines += [", ".join(f"{name} {text}" for name, text in versions.items())]
    lines += [", ".join(f"{name} {text}" for name, text in hardware.items())]
    return "\n".join(lines)


def plain(outcome: Outcome) -> dict[str, Any]:
    """A row as plain values, for JSON; a number that is none is given in words."""
    check, result = outcome.check, outcome.result
    numbers = {"got": None, "expected": None, "tolerance": None} if result is None else vars(result)
    return {
        "group": check.group,
        "name": check.name,
        "source": check.source,
        **{key: _finite(value) for key, value in numbers.items()},
        "passed": outcome.passed,
        "error": outcome.error,
        "seconds": round(outcome.seconds, 3),
    }


def _line(cells: Sequence[str], verdict: str) -> str:
    name, *numbers = (_padded(c, w) for c, w in zip(cells, WIDTHS, strict=True))
    return "  ".join((name, *numbers, verdict))


def _padded(text: str, width: int) -> str:
    """With spaces up to a width, in which the tilde of β̃ takes none."""
    return text + " " * (width - sum(not combining(letter) for letter in text))


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}"


def _finite(value: float | None) -> float | str | None:
    return value if value is None or math.isfinite(value) else str(value)
