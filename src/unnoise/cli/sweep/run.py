"""unnoise-train -m: a sweep of runs, which goes on where it was when it is run again."""

import json
import math
import sys
import traceback
from argparse import Namespace
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from unnoise.cli import failures
from unnoise.cli.command import parse, plain, start, stop_if_wrong, typed
from unnoise.cli.sweep import search
from unnoise.cli.sweep import summary as ledger
from unnoise.cli.sweep.jobs import Job, Sweep, problems_of, sweep_of, those_of
from unnoise.config.identity import sweep_told
from unnoise.config.problems import ConfigError, Problem, did_you_mean
from unnoise.distributed.environment import place
from unnoise.files import write_durably
from unnoise.report.reader import read_run
from unnoise.runs.layout import RunDirectory

Check = Callable[[dict[str, Any]], Iterable[list[Problem]]]
Train = Callable[[dict[str, Any]], None]
STOPPED = (130, 143, -1)
"""Exit statuses of a job that was told to stop, or that submitit has queued again (−1)."""
"""In the directory of a run that failed: its traceback."""


def run(check: Check, train: Train) -> None:
    """Train all jobs that are not finished, and print the ledger; ends with status 1 if one failed.

    Everything is composed and checked before the first job is started; of a search, what it keeps
    fixed. With sweep=status only the ledger is printed.
    """
    if place().world_size > 1:
        told = "-m: torchrun and srun start the ranks of one run; for a sweep use trainer=ddp"
        _refuse(told if place().rank == 0 else None)
    arguments = typed()
    config, found = parse("train")
    stop_if_wrong([found])
    assert config is not None
    try:
        sweep = _composed(arguments)
        if config["sweep"] == "status":
            _print_ledger(sweep, config)
            return
        stop_if_wrong([_problems(sweep, config, check)])
        left = _go_on(sweep)
    except ConfigError as error:
        _refuse(error)

    keys, searches = sweep.keys, sweep.study is not None

    def task(node: DictConfig) -> float | None:
        return attempt(plain(node), keys, check if searches else None, train)

    status: Any = 0
    if left != 0:
        asked = arguments.overrides
        if left is not None:
            arguments.overrides = [*asked, f"hydra.sweeper.n_trials={left}"]
        try:
            with sweep_told(sweep.digest):
                start(arguments, "train", task)
        except SystemExit as stop:
            status = stop.code
        if (ray := sys.modules.get("ray")) is not None:
            ray.shutdown()  # what its workers still have to say comes before the ledger
        arguments.overrides = asked
        if sweep.study or not all(job.run_dir.exists() for job in sweep.jobs):
            sweep = _composed(arguments)
    undone = _print_ledger(sweep, config)
    if status or undone:
        sys.exit(status or undone)


def _refuse(told: object) -> NoReturn:
    if told is not None:
        print(told, file=sys.stderr)
    sys.exit(2)


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
        if ledger.row(job).state not in ledger.DONE:
            train(config)
        return None
    print(f"\njob {hydra.job.num}: {' '.join(swept)}", flush=True)
    state = ledger.row(job).state
    if state == "running":
        print(f"  is being trained by another process: {job.run_dir}")
        return None
    if state in ledger.DONE:
        print(f"  {state} before: {job.run_dir}")
        return _metric(job)
    try:
        batches = check(config | {"resume": False}) if check is not None else []
        if errors := [each for found in batches for each in found if each.severity == "error"]:
            raise ConfigError("; ".join(map(str, errors)))
        study = search.of(hydra.sweeper)
        trial = study.trial(swept) if study is not None else None
        with search.told(trial):
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


def _problems(sweep: Sweep, config: dict[str, Any], check: Check) -> list[Problem]:
    found = list(sweep.problems)
    if isinstance(config["resume"], str):
        told = "names one run, but a sweep finds the runs of its jobs by itself: leave it out"
        found.append(Problem("resume", told))
    prunes = [
        f"callbacks.{name}"
        for name, each in config["callbacks"].items()
        if isinstance(each, dict) and str(each.get("_target_")).endswith(".Pruning")
    ]
    if prunes and (sweep.study is None or sweep.study.storage is None):
        told = "needs a search with hydra.sweeper.storage, as in hparams_search=learning_rate"
        found.append(Problem(prunes[0], told))
    if sweep.study is None:
        return found + problems_of(sweep.jobs, check)
    return found + [problem for batch in check(config) for problem in batch]


def _composed(arguments: Namespace) -> Sweep:
    folders = [arguments.config_dir] if arguments.config_dir else []
    return sweep_of(arguments.config_name or "train", arguments.overrides, folders)


def _go_on(sweep: Sweep) -> int | None:
    """How many trials of a search are left; None with a grid, and of a study that is not kept."""
    if sweep.study is None:
        return None
    held = {job.swept for job in sweep.jobs if ledger.is_held(job.run_dir)}
    return sweep.study.go_on(held.__contains__)


def _print_ledger(sweep: Sweep, config: dict[str, Any]) -> int:
    """Returns 1 if there are jobs that are neither done nor running."""
    rows = [ledger.row(job) for job in sweep.jobs]
    print()
    if rows:
        maximize = sweep.study is not None and sweep.study.maximize
        print(ledger.table(rows, config["metric"], maximize))
    if sweep.study is not None:
        print(sweep.study.told(len(rows)))
    return int(any(each.state not in (*ledger.DONE, "running") for each in rows))
