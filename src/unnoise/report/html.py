"""HTML in which all text is escaped unless it was made here, and how numbers look in it."""

import html
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

VOID = {"img", "input"}
LONG = 16
"""Rows beyond which a table scrolls up and down as well."""


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


def element(name: str, attributes: Mapping[str, str | None], *children: str) -> Html:
    """An element; children that are not ``Html`` are escaped, attributes always.

    An attribute whose value is None is left out.
    """
    told = "".join(
        f' {key}="{html.escape(value)}"' for key, value in attributes.items() if value is not None
    )
    inside = joined(children)
    return Html(f"<{name}{told}>" if name in VOID else f"<{name}{told}>{inside}</{name}>")


def joined(parts: Sequence[str]) -> Html:
    """One after the other; what is not ``Html`` is escaped."""
    return Html("".join(each if isinstance(each, Html) else html.escape(each) for each in parts))


def section(title: str, anchor: str, *children: str) -> Html:
    """A part of the page under a heading."""
    return element("section", {"id": anchor}, element("h2", {}, title), *children)


def details(summary: str, *children: str) -> Html:
    """What is closed until it is asked for."""
    return element("details", {}, element("summary", {}, summary), *children)


def note(text: str) -> Html:
    """A sentence that explains."""
    return element("p", {"class": "note"}, text)


class Cell(NamedTuple):
    """What a table shows in one place; ``value`` is what it is sorted by."""

    shown: str
    value: float | str | None = None
    mark: str | None = None


@dataclass(frozen=True)
class Column:
    """A column's heading; ``order`` is 1 if less is better, −1 if more is, 0 if neither.

    ``kinds`` has an entry for each row: its values are put in order only within a kind.
    """

    head: str
    order: int = 0
    kinds: Sequence[int] | None = None


def table(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], sortable: bool = True) -> Html:
    """A table that scrolls inside its box; a column of numbers stands at the right."""
    numeric = [
        any(isinstance(row[k].value, int | float) for row in rows) for k in range(len(columns))
    ]
    head = [
        element(
            "th",
            {
                "scope": "col",
                "class": "number" if number else None,
                "data-order": str(column.order) if column.order else None,
            },
            element("button", {"type": "button"}, column.head) if sortable else column.head,
        )
        for column, number in zip(columns, numeric, strict=True)
    ]
    body = []
    for i, row in enumerate(rows):
        cells = []
        for column, number, cell in zip(columns, numeric, row, strict=True):
            classes = " ".join(filter(None, ["number" if number else None, cell.mark]))
            told = None if cell.value is None else str(cell.value)
            kind = None if column.kinds is None else str(column.kinds[i])
            attributes = {"class": classes or None, "data-value": told, "data-kind": kind}
            cells.append(element("td", attributes, cell.shown))
        body.append(element("tr", {}, *cells))
    whole = element(
        "table",
        {"class": "sortable" if sortable else None},
        element("thead", {}, element("tr", {}, *head)),
        element("tbody", {}, *body),
    )
    return element("div", {"class": "scroll tall" if len(rows) > LONG else "scroll"}, whole)


def facts(rows: Mapping[str, str]) -> Html:
    """Names and what they stand for, one below the other."""
    lines = [
        element("div", {}, element("dt", {}, k), element("dd", {}, v)) for k, v in rows.items()
    ]
    return element("dl", {"class": "facts"}, *lines)


def number(value: Any) -> str:
    """A number to be read: four digits, thousands apart; other values as they are."""
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
        digits = f"{mantissa}·{power(int(exponent))}"
    return digits.replace("-", "−")


def breakable(text: str) -> Html:
    """Text that may be broken within its long words: after dots, underscores and the like."""
    parts = re.split(r"(?<=[._=/,])(?=[A-Za-z])|(?<=[_=/,])(?=\d)|(?<=\d[-_])(?=\w)", text)
    return Html("<wbr>".join(html.escape(part) for part in parts))


def power(exponent: int) -> str:
    """Of ten."""
    return "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def uncertain(value: float, error: float | None) -> str:
    """A value to the two digits of its error that mean something; 4.3 ± 0.1 thousandths as such."""
    if not error or not math.isfinite(value) or not math.isfinite(error):
        return number(value)
    size = math.floor(math.log10(abs(value) or error))
    scale = size if size < -2 else 0
    value, error = value / 10.0**scale, error / 10.0**scale
    digits = max(0, 1 - math.floor(math.log10(error)))
    told = f"{value:,.{digits}f} ± {error:,.{digits}f}".replace("-", "−")
    return f"({told})·{power(scale)}" if scale else told


def percent(share: float) -> str:
    """A share of one, in hundreds."""
    return f"{100 * share:.1f} %"


def duration(seconds: float | None) -> str:
    """Seconds as a person says them."""
    if seconds is None or not math.isfinite(seconds):
        return "–"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"
