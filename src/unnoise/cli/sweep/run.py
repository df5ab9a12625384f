"""unnoise-train -m: a sweep of runs, which goes on where it was when it is run again."""

import gc
import sys
from argparse import Namespace
from typing import Any, NoReturn

from omegaconf import DictConfig

from unnoise.cli.command import parse, plain, stop_if_wrong
from unnoise.cli.hydra_app import folders, start
from unnoise.cli.sweep.attempt import Train, attempt
from unnoise.cli.typed import typed
from unnoise.config.identity import part_of_sweep
from unnoise.config.problems import Check, ConfigError, errors_in
from unnoise.config.sweep import Sweep, sweep_of
from unnoise.distributed.environment import place
from unnoise.report.sweep import DONE, row, table
from unnoise.runs.lock import is_locked


def run(check: Check, train: Train) -> None:
    """Train all jobs that are not finished, and print the summary. The status is 1 if one failed.

    Everything is composed and checked before the first job is started; of a search, what it keeps
    fixed. With sweep=status only the summary is printed.
    """
    if place().world_size > 1:
        why = "-m: torchrun and srun start the ranks of one run; for a sweep use trainer=ddp"
        _refuse(why if place().rank == 0 else None)
    arguments = typed()
    gc.disable()
    config, found = parse("train")
    if errors_in(found):
        found += [] if config is None else check(config)
    stop_if_wrong(found)
    assert config is not None
    try:
        sweep = _composed(arguments)
        if config["sweep"] == "status":
            _print_summary(sweep, config)
            return
        stop_if_wrong(sweep.problems_by(check, config))
        gc.enable()
        running = {job.swept for job in sweep.jobs if is_locked(job.run_dir)}
        left = None if sweep.search is None else sweep.search.go_on(running.__contains__)
    except ConfigError as error:
        _refuse(error)
    keys, unchecked = sweep.keys, check if sweep.search is not None else None

    def task(node: DictConfig) -> float | None:
        return attempt(plain(node), keys, unchecked, train)

    status: Any = 0
    if left != 0:
        overrides = arguments.overrides
        if left is not None:
            arguments.overrides = [*overrides, f"hydra.sweeper.n_trials={left}"]
        try:
            with part_of_sweep(sweep.digest):
                start(arguments, "train", task)
        except SystemExit as stop:
            status = stop.code
        if (ray := sys.modules.get("ray")) is not None:
            ray.shutdown()  # what its workers still have to say comes before the summary
        arguments.overrides = overrides
        if sweep.search or not all(job.run_dir.exists() for job in sweep.jobs):
            sweep = _composed(arguments)
    undone = _print_summary(sweep, config)
    if status or undone:
        sys.exit(status or undone)


def _refuse(why: object) -> NoReturn:
    if why is not None:
        print(why, file=sys.stderr)
    sys.exit(2)


def _composed(arguments: Namespace) -> Sweep:
    name = arguments.config_name or "train"
    return sweep_of(name, arguments.overrides, folders(arguments))


def _print_summary(sweep: Sweep, config: dict[str, Any]) -> int:
    """Returns 1 if there are jobs that are neither done nor running."""
    rows = [row(job) for job in sweep.jobs]
    print()
    if rows:
        maximize = sweep.search is not None and sweep.search.maximize
        print(table(rows, config["metric"], maximize))
    if sweep.search is not None:
        print(sweep.search.line(len(rows)))
    return int(any(each.state not in (*DONE, "running") for each in rows))
