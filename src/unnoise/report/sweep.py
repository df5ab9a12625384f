"""How far the jobs of a sweep are: read from their run directories, whoever runs them."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from unnoise.config.sweep import Job
from unnoise.evaluation.results import aligned
from unnoise.report.reader import read_run
from unnoise.runs.layout import shown
from unnoise.runs.lock import is_locked

NOT_ENDED = {"unknown": "to do", "running": "interrupted", "unfinished": "interrupted"}
"""What a run is that no process trains, by what its directory alone says."""
DONE = ("finished", "pruned")  # states of runs that are not run again


@dataclass(frozen=True)
class Row:
    """One job: its state, the last value of the sweep's metric, its step and seconds."""

    job: Job
    state: str = "to do"
    metric: float | None = None
    step: int = 0
    seconds: float | None = None

    def cells(self, is_best: bool, home: Path) -> tuple[str, ...]:
        """The row as text; directories as seen from ``home``."""
        there = self.job.run_dir.exists()
        return (
            self.state,
            ("-" if self.metric is None else f"{self.metric:.4g}") + (" *" if is_best else "  "),
            f"{self.step}/{self.job.config['max_steps']}",
            "-" if self.seconds is None else str(timedelta(seconds=round(self.seconds))),
            os.path.relpath(self.job.run_dir, home) if there else "-",
            " ".join(map(_short, self.job.swept)),
        )


def row(job: Job) -> Row:
    """What the job's run directory says."""
    if not job.run_dir.is_dir():
        return Row(job)
    run = read_run(job.run_dir)
    state = "running" if is_locked(job.run_dir) else NOT_ENDED.get(run.state, run.state)
    step = run.manifest.get("steps", run.step)
    return Row(job, state, run.last(job.config["metric"]), step, run.seconds)


def table(rows: Sequence[Row], metric: str, maximize: bool = False) -> str:
    """The summary as text, with the best metric of the finished runs marked."""
    finished = [each.metric for each in rows if each.state == "finished"]
    numbers = [value for value in finished if value is not None and math.isfinite(value)]
    best = (max if maximize else min)(numbers, default=None)
    home = Path(os.path.commonpath([each.job.run_dir.parent for each in rows] or [Path.cwd()]))
    lines: list[tuple[str, ...]]
    lines = [("state", metric, "step", "time", f"directory in {shown(home)}", "what differs")]
    lines += [each.cells(each.metric is not None and each.metric == best, home) for each in rows]
    states = [each.state for each in rows]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    mark = "; * is best" if best is not None and len(rows) > 1 else ""
    return "\n".join([*aligned(lines, left=(0, 4, 5)), f"{len(rows)} jobs: {counts}{mark}"])


def _short(override: str) -> str:
    """With four digits of a long number."""
    key, _, value = override.partition("=")
    try:
        return f"{key}={float(value):.4g}" if len(value) > 8 else override
    except ValueError:
        return override
