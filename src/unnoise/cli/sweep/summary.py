"""How far the jobs of a sweep are: read from their run directories, whoever runs them."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unnoise.cli.sweep.jobs import Job
from unnoise.report.reader import read_run
from unnoise.runs.lock import RunLocked, check

NOT_ENDED = {"unknown": "to do", "running": "interrupted", "unfinished": "interrupted"}
"""What a run is that nothing holds, by what its directory alone tells."""
DONE = ("finished", "pruned")
"""States of runs that are not run again."""


@dataclass(frozen=True)
class Row:
    """One job: its state, the last value of the sweep's metric, its step and seconds."""

    state: str
    metric: float | None
    step: int
    steps: int
    seconds: float | None
    swept: tuple[str, ...]
    run_dir: Path


def row(job: Job) -> Row:
    """What the job's run directory tells."""
    found = read_run(job.run_dir) if job.run_dir.is_dir() else None
    steps = int(job.config["max_steps"])
    if found is None:
        return Row("to do", None, 0, steps, None, job.swept, job.run_dir)
    state = NOT_ENDED.get(found.state, found.state)
    state = "running" if is_held(job.run_dir) else state
    metric, step = found.last(job.config["metric"]), found.manifest.get("steps", found.step)
    return Row(state, metric, step, steps, found.seconds, job.swept, job.run_dir)


def table(rows: Sequence[Row], metric: str, maximize: bool = False) -> str:
    """The summary as text, with the best metric of the finished runs marked."""
    finished = [
        each.metric
        for each in rows
        if each.state == "finished" and each.metric is not None and math.isfinite(each.metric)
    ]
    best = (max if maximize else min)(finished, default=None)
    home = _common([each.run_dir for each in rows])
    lines = [("state", metric, "step", "time", f"directory in {home}", "what differs")]
    for each in rows:
        mark = " *" if each.metric is not None and each.metric == best else "  "
        lines.append(
            (
                each.state,
                ("-" if each.metric is None else f"{each.metric:.4g}") + mark,
                f"{each.step}/{each.steps}",
                _time(each.seconds),
                os.path.relpath(each.run_dir, home) if each.run_dir.exists() else "-",
                " ".join(map(_short, each.swept)),
            )
        )
    widths = [max(len(line[k]) for line in lines) for k in range(len(lines[0]) - 1)]
    right = (1, 2, 3)
    told = []
    for line in lines:
        cells = [
            cell.rjust(width) if k in right else cell.ljust(width)
            for k, (cell, width) in enumerate(zip(line, widths, strict=False))
        ]
        told.append("  ".join([*cells, line[-1]]).rstrip())
    told.append(_count(rows) + ("; * is best" if best is not None and len(rows) > 1 else ""))
    return "\n".join(told)


def is_held(run_dir: Path) -> bool:
    """Whether another process trains in a run directory."""
    try:
        check(run_dir)
    except RunLocked:
        return True
    return False


def _count(rows: Sequence[Row]) -> str:
    states = [each.state for each in rows]
    return f"{len(rows)} jobs: " + ", ".join(
        f"{states.count(state)} {state}" for state in dict.fromkeys(states)
    )


def _common(run_dirs: Sequence[Path]) -> str:
    """The folder that all run directories are in, as seen from here."""
    folder = Path(os.path.commonpath([each.parent for each in run_dirs] or [Path.cwd()]))
    return os.path.relpath(folder) if folder.is_relative_to(Path.cwd()) else str(folder)


def _short(override: str) -> str:
    """With four digits of a long number."""
    key, _, value = override.partition("=")
    try:
        return f"{key}={float(value):.4g}" if len(value) > 8 else override
    except ValueError:
        return override


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
