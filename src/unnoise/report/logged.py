"""metrics.jsonl as curves: of the whole file, or of its ends."""

import json
import math
import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson

MOST = 1000  # points of a curve that are kept
SPEED = "train/images_per_second"
BAD_ROW = ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError
"""What reading a line that is no row of numbers raises."""


class Curve(NamedTuple):
    """Values (N,) float64 at steps (N,) int64, as they were logged."""

    steps: np.ndarray
    values: np.ndarray

    def __len__(self) -> int:
        return len(self.steps)


@dataclass
class Logged:
    """What a run logged.

    ``curves`` are thinned to ``MOST`` points; ``times`` has the first row's and the last one's, in
    seconds; ``speed`` is the median of all logged values but the first, in images per second;
    ``faults`` says what is left out.
    """

    curves: dict[str, Curve] = field(default_factory=dict)
    times: tuple[float, float] | None = None
    speed: float | None = None
    faults: list[str] = field(default_factory=list)


def read_log(path: Path) -> Logged:
    """All rows, without a last one that is still being written.

    Raises:
        OSError: the file is there, but cannot be read.
    """
    text = path.read_bytes() if path.exists() else b""
    if not text:
        return Logged(faults=[f"{path.name} is missing or empty: nothing was logged yet"])
    lines = text.splitlines(keepends=True)
    if not lines[-1].endswith(b"\n") and isinstance(_row(lines[-1]), str):
        lines.pop()
    try:
        rows = orjson.loads(b"[" + b",".join(lines) + b"]")
        if len(rows) != len(lines):
            raise ValueError("a line is not a row")
        return _logged(rows)
    except BAD_ROW:
        read = [_row(line) for line in lines]
    found = _logged([row for row in read if not isinstance(row, str)])
    for n, why in enumerate(read, 1):
        if isinstance(why, str):
            found.faults.append(f"{path.name}, line {n} is left out: {why}")
    return found


def read_ends(path: Path, metric: str) -> Logged:
    """The first row, the last, and the last with a metric; how long the file is costs nothing.

    What is of all rows, the speed, is not known.

    Raises:
        OSError: the file is there, but cannot be read.
    """
    if not path.exists() or not path.stat().st_size:
        return Logged()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        lines = (_row(line) for line in iter(text.readline, b""))
        first = next((row for row in lines if not isinstance(row, str)), "")
        with_metric = (row for row in _backwards(text, json.dumps(metric)) if metric in row)
        found = first, next(with_metric, ""), next(_backwards(text, "{"), "")
    return replace(_logged([row for row in found if not isinstance(row, str)]), speed=None)


def thinned(curve: Curve, most: int) -> Curve:
    """At most ``most`` (≥ 4) points of a curve, with all its peaks.

    The curve is cut into equal parts. The minimum and maximum of each part stay, and the first and
    the last point. If a point has to go, those that are not finite go.
    """
    if len(curve) <= most:
        return curve
    inner = curve.values[1:-1]
    width = -(-len(inner) // ((most - 2) // 2))
    parts = np.full((-(-len(inner) // width), width), np.nan)
    parts.flat[: len(inner)] = inner
    finite, starts = np.isfinite(parts), 1 + width * np.arange(len(parts))
    least = starts + np.where(finite, parts, np.inf).argmin(1)
    greatest = starts + np.where(finite, parts, -np.inf).argmax(1)
    some = finite.any(1)
    kept = np.unique(np.concatenate([[0, len(curve) - 1], least[some], greatest[some]]))
    return Curve(curve.steps[kept], curve.values[kept])


def _logged(rows: list[dict[str, Any]]) -> Logged:
    """Rows as curves; whatever is wrong with one of them raises."""
    steps = np.array([row["step"] for row in rows], np.int64)
    times = np.array([row["time"] for row in rows], float)
    if not np.isfinite(times).all():
        raise ValueError("a time is missing")
    kinds: dict[tuple[str, ...], list[int]] = {}  # which rows have the same names
    for k, row in enumerate(rows):
        kinds.setdefault(tuple(row), []).append(k)
    parts: dict[str, list[tuple[list[int], np.ndarray]]] = {}
    for names, where in kinds.items():
        table = np.array([[*rows[k].values()] for k in where], float)  # null is NaN
        if table.ndim > 2:
            raise ValueError("a value is a list")
        for name, column in zip(names, table.T, strict=True):
            parts.setdefault(name, []).append((where, column))
    curves: dict[str, Curve] = {}
    for name, columns in parts.items():
        if name in ("step", "time"):
            continue
        found, values = (np.concatenate(each) for each in zip(*columns, strict=True))
        order = found.argsort()
        curves[name] = Curve(steps[found[order]], values[order])
    speed = None
    if SPEED in curves:
        values = curves[SPEED].values
        speed = float(np.median(values[1:] if len(values) > 1 else values))
    ends = (float(times[0]), float(times[-1])) if rows else None
    return Logged({name: thinned(curve, MOST) for name, curve in curves.items()}, ends, speed)


def _row(line: bytes) -> dict[str, Any] | str:
    """A line as a row of numbers, or what is wrong with it."""
    try:
        row = json.loads(line)
        step, time = int(np.int64(int(row.pop("step")))), float(row.pop("time"))
        if not math.isfinite(time):
            raise ValueError(f"its time is {time}")
        values = {k: math.nan if v is None else float(v) for k, v in row.items()}
    except BAD_ROW as error:
        return str(error)
    return {"step": step, "time": time, **values}


def _backwards(text: mmap.mmap, key: str) -> Iterator[dict[str, Any]]:
    """The whole rows that contain a text, from the last on."""
    wanted, end = key.encode(), len(text)
    while (found := text.rfind(wanted, 0, end)) >= 0:
        end = text.rfind(b"\n", 0, found) + 1
        after = text.find(b"\n", found)
        row = _row(text[end : after if after >= 0 else len(text)])
        if not isinstance(row, str):
            yield row
