"""One job of a sweep: trained unless it is done, and never the end of the sweep."""

import json
import math
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig

from unnoise.cli import failures
from unnoise.cli.command import Check, all_of, errors_in
from unnoise.cli.sweep import search, summary
from unnoise.cli.sweep.jobs import Job, those_of
from unnoise.config.problems import ConfigError, did_you_mean
from unnoise.distributed.environment import place
from unnoise.files import write_durably
from unnoise.report.reader import read_run
from unnoise.runs.layout import RunDirectory

Train = Callable[[dict[str, Any]], None]
STOPPED = (130, 143, -1)
"""Exit statuses of a job that was stopped, or that submitit has queued again (−1)."""


def attempt(
    config: dict[str, Any], keys: set[str], check: Check | None, train: Train
) -> float | None:
    """Train a job if it is not done yet; its metric, or None if it failed or runs elsewhere.

    ``keys`` are those that the sweep sets; ``check`` is for what was not checked before it began.
    Whatever goes wrong is told and noted in the run directory, and the sweep goes on.
    """
    hydra = HydraConfig.get()
    swept = those_of(keys, hydra.overrides.task)
    job = Job(swept, config, Path(hydra.runtime.output_dir))
    if place().rank > 0:  # on another machine of the run: the first one tells
        if summary.row(job).state not in summary.DONE:
            train(config)
        return None
    print(f"\njob {hydra.job.num}: {' '.join(swept)}", flush=True)
    state = summary.row(job).state
    if state == "running":
        print(f"  is being trained by another process: {job.run_dir}")
        return None
    if state in summary.DONE:
        print(f"  {state} before: {job.run_dir}")
        return _metric(job)
    try:
        found = all_of(check, config | {"resume": False}) if check is not None else []
        if errors := errors_in(found):
            raise ConfigError("; ".join(map(str, errors)))
        study = search.of(hydra.sweeper)
        trial = study.trial(swept) if study is not None else None
        with search.passed_on(trial):
            train(config)
        RunDirectory(job.run_dir).error.unlink(missing_ok=True)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
    except (Exception, SystemExit) as error:
        if isinstance(error, SystemExit) and error.code in STOPPED:
            raise
        _note(job, error)
        return None
    return _metric(job)


def _note(job: Job, error: BaseException) -> None:
    """Tell why a job failed, in short here and in full in its run directory."""
    short = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    full = RunDirectory(job.run_dir).error
    print(f"  failed: {failures.told(error, job.config) or short}", file=sys.stderr)
    path = RunDirectory(job.run_dir).manifest
    try:
        manifest = json.loads(path.read_text())
    except (OSError, ValueError):
        manifest = {}
    text = json.dumps({"failed": short} | manifest, indent=2) + "\n"
    try:
        write_durably(path, lambda temporary: temporary.write_text(text))
        full.write_text("".join(traceback.format_exception(error)))
        print(f"  in full: {full}", file=sys.stderr, flush=True)
    except OSError as unwritten:  # such as a full disk
        print(f"  could not be noted: {unwritten}", file=sys.stderr, flush=True)


def _metric(job: Job) -> float | None:
    found, name = read_run(job.run_dir), job.config["metric"]
    value = found.last(name)
    if value is None:
        hint = did_you_mean(name, found.curves)
        print(f"  metric: the run has not logged '{name}'{hint}", file=sys.stderr)
    return value if value is not None and math.isfinite(value) else None
