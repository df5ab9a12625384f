"""Tables as data, column by column, and how numbers look; ``parts.html`` shows them."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup

EXPONENTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


class Cell(NamedTuple):
    """One cell: the value to sort by and, where the value itself is not shown, the text.

    ``kind`` is the group within which the value may be compared; ``file`` is linked to.
    """

    value: Any = None
    text: str | None = None
    mark: str | None = None
    kind: int | None = None
    file: Path | None = None

    @property
    def shown(self) -> str:
        """The text of the cell."""
        return number(self.value) if self.text is None else self.text

    @property
    def sort_key(self) -> float | str | None:
        """What the page's script sorts by; None sorts last."""
        return self.value if isinstance(self.value, int | float | str) else None


@dataclass(frozen=True)
class Column:
    """A heading and the cells below it.

    ``order`` is 1 if less is better, −1 if more is better, else 0. ``style`` is "" for plain text,
    "breakable" for long names, "state" for the states of runs.
    """

    head: str
    cells: Sequence[Cell]
    order: int = 0
    style: str = ""

    @cached_property
    def numeric(self) -> bool:
        """Whether the column is aligned to the right."""
        return any(isinstance(cell.value, int | float) for cell in self.cells)


def best(values: Iterable[float | None], lower: bool, least: int = 1) -> float | None:
    """The best of the finite values; None if there are less than ``least`` of them."""
    finite = [value for value in values if value is not None and math.isfinite(value)]
    return (min if lower else max)(finite) if len(finite) >= least else None


def number(value: Any) -> str:
    """A number with four digits and separated thousands; other values as they are."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if not math.isfinite(value):
        return str(value).replace("nan", "NaN").replace("inf", "∞").replace("-", "−")
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    digits = f"{value:.4g}"
    if "e" in digits:
        mantissa, exponent = digits.split("e")
        digits = f"{mantissa}·10{str(int(exponent)).translate(EXPONENTS)}"
    return digits.replace("-", "−")


def with_error(value: float, error: float | None) -> str:
    """A value and its standard error, to two digits of the error; below 0.01 as (a ± b)·10ⁿ."""
    if not error or not math.isfinite(value) or not math.isfinite(error):
        return number(value)
    size = math.floor(math.log10(abs(value) or error))
    scale = size if size < -2 else 0
    value, error = value / 10.0**scale, error / 10.0**scale
    digits = max(0, 1 - math.floor(math.log10(error)))
    text = f"{value:,.{digits}f} ± {error:,.{digits}f}".replace("-", "−")
    return f"({text})·10{str(scale).translate(EXPONENTS)}" if scale else text


def duration(seconds: float | None) -> str:
    """Seconds, minutes, or hours and minutes."""
    if seconds is None or not math.isfinite(seconds):
        return "–"
    if seconds < 120:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"


@cache
def breakable(text: str) -> Markup:
    """Text in which long words may break after dots, underscores and the like; escaped."""
    parts = re.split(r"(?<=[._=/,])(?=[A-Za-z])|(?<=[_=/,])(?=\d)|(?<=\d[-_])(?=\w)", text)
    return Markup("<wbr>").join(parts)
