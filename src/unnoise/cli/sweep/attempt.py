"""One job of a sweep: trained unless it is done, and never the end of the sweep."""

import json
import math
import sys
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig

from unnoise.config.problems import Check, ConfigError, did_you_mean, errors_in
from unnoise.config.search import search_of
from unnoise.config.sweep import Job, those_of
from unnoise.distributed.environment import place
from unnoise.files import write_text
from unnoise.report.reader import read_run
from unnoise.report.sweep import DONE, row
from unnoise.runs.layout import RunDirectory

Train = Callable[[dict[str, Any]], None]
STOPPED = (130, 143, -1)
"""Exit statuses of a job that was stopped, or that submitit has queued again (−1)."""


def attempt(
    config: dict[str, Any], keys: set[str], check: Check | None, train: Train
) -> float | None:
    """Train a job if it is not done yet; its metric, or None if it failed or runs elsewhere.

    ``keys`` are those that the sweep sets; ``check`` is for what was not checked before it began.
    Whatever goes wrong is printed and noted in the run directory, and the sweep goes on.
    """
    hydra = HydraConfig.get()
    swept = those_of(keys, hydra.overrides.task)
    job = Job(swept, config, Path(hydra.runtime.output_dir))
    state = row(job).state
    if place().rank > 0:  # on another machine of the run: the first one prints
        if state not in DONE:
            train(config)
        return None
    print(f"\njob {hydra.job.num}: {' '.join(swept)}", flush=True)
    if state == "running":
        print(f"  is being trained by another process: {job.run_dir}")
        return None
    if state in DONE:
        print(f"  {state} before: {job.run_dir}")
        return _metric(job)
    try:
        found = [] if check is None else check(config | {"resume": False})
        if errors := errors_in(found):
            raise ConfigError("; ".join(map(str, errors)))
        search = search_of(hydra.sweeper)
        with search.passed_on(swept) if search is not None else nullcontext():
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
    """Say why a job failed, in short here and in full in its run directory."""
    from unnoise.training.failures import explanation

    short = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    print(f"  failed: {explanation(error, job.config) or short}", file=sys.stderr)
    run = RunDirectory(job.run_dir)
    try:
        manifest = json.loads(run.manifest.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        manifest = {}
    text = json.dumps({"failed": short} | manifest, indent=2) + "\n"
    try:
        write_text(run.manifest, text)
        run.error.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
        print(f"  in full: {run.error}", file=sys.stderr, flush=True)
    except OSError as unwritten:  # such as a full disk
        print(f"  could not be noted: {unwritten}", file=sys.stderr, flush=True)


def _metric(job: Job) -> float | None:
    after, name = row(job), job.config["metric"]
    if after.metric is None:
        near = did_you_mean(name, read_run(job.run_dir).curves)
        print(f"  metric: the run has not logged '{name}'{near}", file=sys.stderr)
    return after.metric if after.metric is not None and math.isfinite(after.metric) else None
