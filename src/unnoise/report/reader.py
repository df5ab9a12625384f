"""Run directories as a report reads them: damage becomes a listed problem, not an error."""

import json
import os
import platform
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from unnoise.evaluation.results import Score, read
from unnoise.report.logged import Curve, Logged, read_ends, read_log
from unnoise.runs.layout import RunDirectory
from unnoise.untrusted import load_yaml

MANY = 64  # runs that are worth the start of processes
MARKS = ("manifest.json", "metrics.jsonl")  # files of which one makes a folder a run directory
KINDS: dict[str, type | tuple[type, ...]] = {
    "resumed": list,
    "overrides": list,
    "choices": dict,
    "seconds": (int, float),
    "pid": int,
}
"""Types of the manifest's keys on which a report relies."""


@dataclass(frozen=True)
class Table:
    """An evaluation in rows, such as adherence or likelihood; ``about`` has its settings.

    ``picture`` is its file, where it has one.
    """

    measure: str
    about: dict[str, Any]
    rows: list[dict[str, Any]]
    picture: Path | None = None


@dataclass
class Run:
    """The content of a run directory; ``problems`` says what could not be read.

    ``choices`` has the chosen option of each config group, by the group's key.
    """

    folder: Path
    config: dict[str, Any] = field(default_factory=dict)
    manifest: dict[str, Any] = field(default_factory=dict)
    overrides: list[str] = field(default_factory=list)
    choices: dict[str, str] = field(default_factory=dict)
    logged: Logged = field(default_factory=Logged)
    scores: list[Score] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The name in the config, else that of the folder."""
        return str(self.config.get("name") or self.manifest.get("name") or self.folder.name)

    @property
    def grids(self) -> dict[int, Path]:
        """The sample grid of each step that has one."""
        paths = RunDirectory(self.folder).grids()
        return {int(path.stem[5:]): path for path in paths if path.stem[5:].isdecimal()}

    @property
    def curves(self) -> dict[str, Curve]:
        """What was logged of each metric, in order of steps."""
        return self.logged.curves

    @property
    def step(self) -> int:
        """The last logged step."""
        return max((int(curve.steps[-1]) for curve in self.curves.values()), default=0)

    @property
    def steps(self) -> int | None:
        """The number of steps to train, by the config."""
        steps = self.config.get("max_steps")
        return steps if isinstance(steps, int) else None

    @property
    def started(self) -> datetime | None:
        """When the run started, by its manifest."""
        try:
            return datetime.strptime(str(self.manifest.get("started")), "%Y-%m-%dT%H:%M:%S%z")
        except ValueError:
            return None

    @property
    def seconds(self) -> float | None:
        """The duration, by the manifest, else from the first logged line to the last."""
        if "seconds" in self.manifest:
            return float(self.manifest["seconds"])
        times = self.logged.times
        return times[1] - times[0] if times and times[0] != times[1] else None

    @property
    def speed(self) -> float | None:
        """Images per second, the median of all logged but the first; None if only ends are read."""
        return self.logged.speed

    def last(self, metric: str) -> float | None:
        """The newest value of a metric."""
        curve = self.curves.get(metric)
        return None if curve is None else float(curve.values[-1])

    @property
    def state(self) -> str:
        """Finished, pruned, failed, running, interrupted, unfinished (elsewhere) or unknown."""
        for state in ("failed", "pruned", "finished"):
            if self.manifest.get(state):
                return state
        if "seconds" in self.manifest:
            return "interrupted"
        if "pid" not in self.manifest:
            return "unknown"
        if self.manifest.get("host") != platform.node():
            return "unfinished"
        try:
            os.kill(self.manifest["pid"], 0)  # only looks
        except PermissionError:
            return "running"
        except (OSError, OverflowError):
            return "interrupted"
        return "running"


def find_runs(folder: Path) -> list[Path]:
    """The run directories at or below a folder, by name; none inside another run.

    Raises:
        FileNotFoundError: no such folder, or no run in it.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is {'a file' if folder.exists() else 'not there'}")
    runs = []
    for path, folders, files in os.walk(folder):
        if any(mark in files for mark in MARKS):
            runs.append(Path(path))
            folders.clear()
        folders[:] = sorted(name for name in folders if not name.startswith("."))
    if not runs:
        raise FileNotFoundError(f"no run is at or below {folder} (a folder with {MARKS[1]})")
    return runs


def runs_below(paths: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """The runs at or below all paths, each once, and what is wrong with the paths."""
    if not paths:
        return [], ["path: missing: name a run directory, or a folder with runs below it"]
    folders: dict[Path, Path] = {}
    faults = []
    for path in paths:
        try:
            for folder in find_runs(path):
                folders.setdefault(folder.resolve(), folder)
        except FileNotFoundError as error:
            faults.append(f"path: {error}")
    return list(folders.values()), faults


def read_run(folder: Path) -> Run:
    """Read a run directory; never fails, but fills ``problems``."""
    run, files = Run(folder), RunDirectory(folder)
    run.config = _read(run, files.config, load_yaml)
    _read_manifest(run, files.manifest)
    _read_log(run, files.metrics, read_log)
    for path in sorted(files.evaluation.glob("*.json")):
        try:
            if path.stem.startswith("quality"):
                run.scores += _checked(read(path))
            else:
                run.tables.append(_table(path))
        except (ValueError, AttributeError, OSError) as error:
            run.problems.append(f"{path.relative_to(folder)} is left out: {error}")
    return run


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Read run directories, many of them by a process for each core."""
    if len(folders) < MANY:
        return [read_run(folder) for folder in folders]
    with ProcessPoolExecutor() as pool:
        return list(pool.map(read_run, folders, chunksize=8))


def read_state(folder: Path, metric: str) -> Run:
    """A run directory as far as it tells how the run is: of its log only the ends."""
    run, files = Run(folder), RunDirectory(folder)
    _read_manifest(run, files.manifest)
    _read_log(run, files.metrics, partial(read_ends, metric=metric))
    return run


def _read_manifest(run: Run, path: Path) -> None:
    run.manifest = _read(run, path, lambda path: json.loads(path.read_text(encoding="utf-8")))
    for key, kind in KINDS.items():
        if key in run.manifest and not isinstance(run.manifest[key], kind):
            run.problems.append(f"manifest.json: {key} is {run.manifest.pop(key)!r}")
    run.overrides = [str(each) for each in run.manifest.get("overrides", [])]
    run.choices = {  # such as {"sampler": "ddim", "callbacks.samples.sampler": "euler"}
        str(group).rpartition("@")[2].replace("/", "."): option
        for group, option in run.manifest.get("choices", {}).items()
        if isinstance(option, str)
    }


def _read_log(run: Run, path: Path, read: Callable[[Path], Logged]) -> None:
    try:
        run.logged = read(path)
    except OSError as error:
        run.logged = Logged(faults=[f"{path.name} is unreadable: {error}"])
    run.problems += run.logged.faults


def _read(run: Run, path: Path, parse: Callable[[Path], Any]) -> dict[str, Any]:
    """A file of the run, parsed; empty if it is missing, damaged or no mapping."""
    try:
        content = parse(path)
        json.dumps(content, default=str)  # whether it can be shown
        if isinstance(content, dict):
            return content
        why = "not of the right type"
    except FileNotFoundError:
        why = "missing"
    except (ValueError, TypeError, OSError, RecursionError) as error:
        why = f"unreadable: {' '.join(str(error).split())}"
    run.problems.append(f"{path.name} is {why}")
    return {}


def _checked(scores: list[Score]) -> list[Score]:
    """The scores, if all their values have the right types."""
    for score in scores:
        values = [v for each in score.metrics.values() for v in (each.value, each.error or 0.0)]
        if not isinstance(score.fingerprint.count, int):
            raise ValueError(f"{score.name} does not say what was scored")
        if not all(isinstance(value, int | float) for value in values):
            raise ValueError(f"{score.name} has values that are not numbers")
    return scores


def _table(path: Path) -> Table:
    content = json.loads(path.read_text(encoding="utf-8"))
    rows = content.pop("rows", None) if isinstance(content, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("holds no rows")
    picture = path.with_suffix(".png")
    name = str(content.pop("measure", path.stem))
    return Table(name, content, rows, picture if picture.exists() else None)
