"""What the columns of a table must hold; all rows that are wrong are found in one pass.

A column is an Arrow ChunkedArray of N rows. Nothing is decoded, and no row becomes an object.
"""

from collections.abc import Sequence
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor

from unnoise.data.walk import by_number

NAMED = 10  # rows that a message names


class Problems(list[str]):
    """What is wrong with a table, one line each."""

    def add(self, where: str, wrong: Any, what: str) -> None:
        """Tell the rows of which the Arrow booleans ``wrong`` are true, if there are any."""
        rows = np.flatnonzero(wrong.to_numpy(zero_copy_only=False))
        if len(rows):
            first = ", ".join(map(str, rows[:NAMED].tolist())) + (
                ", …" if len(rows) > NAMED else ""
            )
            self.append(f"{where}: {what} in {len(rows):,} of {len(wrong):,} rows: {first}")


class Texts(Sequence[str]):
    """The texts of rows (N,) of a column, read as they are needed."""

    def __init__(self, column: Any, rows: Tensor) -> None:
        self.column, self.rows = column, rows

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...

    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return [self[k] for k in range(*index.indices(len(self)))]
        return str(self.column[int(self.rows[index])].as_py())


def lacking(column: Any) -> Any:
    """Of pictures, Arrow structs of bytes and path: whether there is neither."""
    import pyarrow.compute as pc

    data, path = pc.struct_field(column, "bytes"), pc.struct_field(column, "path")
    empty = pc.fill_null(pc.equal(pc.binary_length(data), 0), False)
    return pc.or_(empty, pc.and_(pc.is_null(data), pc.is_null(path)))


def captions(column: Any, where: str, optional: bool, problems: Problems) -> Any:
    """The captions; with ``optional`` what is null or blank is "", else it is a problem."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        many = "; keep one for each picture" if pa.types.is_list(kind) else ""
        problems.append(f"{where}: must hold texts, one a picture, not {kind}{many}")
        return column
    blank = _blank(column)
    if not optional:
        what = "no caption (data.uncaptioned=true trains these without a condition)"
        problems.add(where, blank, what)
    elif pc.any(blank).as_py():
        column = pc.if_else(blank, pa.scalar("", kind), column)
    return column


def label_names(columns: Sequence[Any], names: Sequence[str] | None) -> tuple[str, ...]:
    """The names of labels: those given, else the texts in natural order, or the numbers."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if names is not None:
        return tuple(names)
    if all(_is_text(column) for column in columns):
        distinct = {text for column in columns for text in pc.unique(column).to_pylist()}
        return tuple(sorted((text for text in distinct if text is not None), key=by_number))
    if not all(_is_whole(column) for column in columns):
        return ()
    numbers = (pc.max(column.cast(pa.int64())).as_py() for column in columns)
    highest = max((number for number in numbers if number is not None), default=-1)
    return tuple(map(str, range(highest + 1)))


def labels(column: Any, where: str, names: Sequence[str], problems: Problems) -> Tensor:
    """The labels (N,) int64: whole numbers from 0, or texts by their place among ``names``."""
    import pyarrow as pa
    import pyarrow.compute as pc

    none = torch.zeros(len(column), dtype=torch.int64)
    if _is_text(column):
        wrong, what = _blank(column), "no label"
        column = pc.index_in(column, value_set=pa.array(names, column.type))
    elif _is_whole(column):
        column = column.cast(pa.int64())
        outside = pc.or_(pc.less(column, 0), pc.greater_equal(column, len(names)))
        wrong, what = pc.fill_null(outside, True), f"no label from 0 to {len(names) - 1}"
    else:
        problems.append(f"{where}: must hold whole numbers from 0 or texts, not {column.type}")
        return none
    problems.add(where, wrong, what)
    if pc.any(wrong).as_py():
        return none
    return torch.from_numpy(column.to_numpy().astype(np.int64))


def _is_text(column: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(column.type) or pa.types.is_large_string(column.type))


def _is_whole(column: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_integer(column.type) or pa.types.is_boolean(column.type))


def _blank(column: Any) -> Any:
    """Whether texts are null, or have nothing but spaces."""
    import pyarrow.compute as pc

    return pc.fill_null(pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(column)), 0), True)
