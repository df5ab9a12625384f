"""Tables as data, column by column; the template ``parts.html`` shows them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from unnoise.report.page.numbers import number


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

    @property
    def numeric(self) -> bool:
        """Whether the column is aligned to the right."""
        return any(isinstance(cell.value, int | float) for cell in self.cells)
