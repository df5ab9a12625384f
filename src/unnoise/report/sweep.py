"""How far the jobs of a sweep are: read from their run directories, whoever runs them."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from unnoise.config.sweep import Job
from unnoise.evaluation.results import WIDTH, aligned, folded
from unnoise.report.reader import Run, read_state
from unnoise.runs.layout import shown
from unnoise.runs.lock import is_locked

NOT_ENDED = {"unknown": "to do", "running": "interrupted", "unfinished": "interrupted"}
"""What a run is that no process trains, by what its directory alone says."""
DONE = ("finished", "pruned")  # states of runs that are not run again


@dataclass(frozen=True)
class Row:
    """One job, its state, and what its run directory has, which may not exist yet."""

    job: Job
    state: str
    run: Run

    @property
    def metric(self) -> float | None:
        """The last value of the sweep's metric."""
        return self.run.last(self.job.config["metric"])

    def cells(self, is_best: bool, home: Path) -> tuple[str, ...]:
        """The row as text; directories as seen from ``home``."""
        run, folder = self.run, self.job.run_dir
        return (
            self.state,
            ("-" if self.metric is None else f"{self.metric:.4g}") + (" *" if is_best else "  "),
            f"{run.manifest.get('steps', run.step)}/{self.job.config['max_steps']}",
            "-" if run.seconds is None else str(timedelta(seconds=round(run.seconds))),
            os.path.relpath(folder, home) if folder.exists() else "-",
            " ".join(map(_short, self.job.swept)),
        )


def row(job: Job) -> Row:
    """The job with what its run directory says."""
    run = read_state(job.run_dir, job.config["metric"])
    running = is_locked(job.run_dir)
    return Row(job, "running" if running else NOT_ENDED.get(run.state, run.state), run)


def table(rows: Sequence[Row], metric: str, maximize: bool = False) -> str:
    """The summary as text, with the best metric of the finished runs marked."""
    finished = [each.metric for each in rows if each.state == "finished"]
    numbers = [value for value in finished if value is not None and math.isfinite(value)]
    best = (max if maximize else min)(numbers, default=None)
    home = Path(os.path.commonpath([each.job.run_dir.parent for each in rows] or [Path.cwd()]))
    lines: list[tuple[str, ...]]
    lines = [("state", metric, "step", "time", f"directory in {shown(home)}", "what differs")]
    lines += [each.cells(each.metric is not None and each.metric == best, home) for each in rows]
    text = aligned(lines, left=(0, 4, 5))
    if max(map(len, text)) > WIDTH:
        jobs = ("job", *map(str, range(len(rows))))
        numbered = [(job, *line) for job, line in zip(jobs, lines, strict=True)]
        text = folded(numbered, 1, (0, 1, 5, 6))
    states = [each.state for each in rows]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    mark = "; * is best" if best is not None and len(rows) > 1 else ""
    return "\n".join([*text, f"{len(rows)} job{'s' * (len(rows) != 1)}: {counts}{mark}"])


def _short(override: str) -> str:
    """With four digits of a long number."""
    key, _, value = override.partition("=")
    try:
        return f"{key}={float(value):.4g}" if len(value) > 8 else override
    except ValueError:
        return override
