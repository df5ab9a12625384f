"""Runs that are to be there: their overrides, and what their training took."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from unnoise.runs import manifest
from unnoise.runs.layout import RunDirectory
from unnoise.untrusted import load_yaml

Part = Annotated[float, Field(gt=0, le=1)]


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A run by the overrides of unnoise-train.

    Args:
        train: the overrides.
        scaled: keys that are this part of the steps, as in ``warmup_steps: 0.05``.
        first: the run that it starts from, by ``from=``.
        share: the part of the time that is its own; the rest is that of ``first``.
    """

    train: list[str]
    scaled: dict[str, Part] | None = None
    first: "Wanted | None" = None
    share: Part = 1.0

    def of_steps(self, steps: int) -> list[str]:
        """The overrides that follow from the number of steps."""
        scaled = (self.scaled or {}).items()
        return [f"max_steps={steps}", *(f"{k}={max(1, round(v * steps))}" for k, v in scaled)]


@dataclass(frozen=True)
class Spent:
    """What ``steps`` of training took, without validation, drawing and saving.

    ``seconds`` are those of the processor on a CPU (all threads of one process), else of the wall.
    """

    steps: int
    seconds: float
    unit: str

    @property
    def rate(self) -> float:
        """Seconds a step."""
        return self.seconds / self.steps

    def __str__(self) -> str:
        """As in "3.2 processor hours"."""
        for size, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
            if self.seconds >= 2 * size:
                return f"{self.seconds / size:.1f} {self.unit[:-1]}{name}"
        return f"{self.seconds:.0f} {self.unit[:-1]}seconds"


def spent(run_dir: Path, batch_size: int, after: int = 0) -> Spent | None:
    """What the steps that are logged took, but for those up to ``after``; None if none are.

    The first step also makes things ready: leave it out where few are timed. Where a run stopped
    between two lines, the steps before that are taken to be as long as those after it.
    """
    about = manifest.read(run_dir)
    on_cpu, starts = str(about.get("device", "cpu")) == "cpu", [0]
    for each in about.get("resumed", []):  # steps; what one undoes is not there any more
        starts = [*(step for step in starts if step < each["step"]), each["step"]]
    before, steps, seconds = 0, 0, 0.0
    for row in _rows(RunDirectory(run_dir).metrics):
        if "train/images_per_second" not in row:
            continue
        taken = row["step"] - before
        if row["step"] > after:
            steps += taken
            wall = taken * batch_size / row["train/images_per_second"]
            timed = row["step"] - max(before, *(step for step in starts if step < row["step"]))
            processor = row.get("train/processor_seconds")
            seconds += processor * taken / timed if on_cpu and processor is not None else wall
        before = row["step"]
    return Spent(steps, seconds, "processor s" if on_cpu else "s") if steps else None


def spent_in_all(run_dir: Path, config: Mapping[str, Any]) -> float | None:
    """Seconds of a run and of those that it started from; None if one of them does not say it."""
    before: float | None = 0.0
    if initial := config.get("initial"):
        first = RunDirectory.of(Path(initial["run"]))
        known = first.config.is_file()
        before = spent_in_all(first.path, load_yaml(first.config)) if known else None
    took = spent(run_dir, config["batch_size"])
    return None if took is None or before is None else round(took.seconds + before, 3)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a log that are whole; the last one may be in the making."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    for line in text.splitlines(keepends=True):
        if line.endswith("\n"):
            yield json.loads(line)
