"""unnoise-train: train a generative model as a config says."""

import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf

from unnoise.cli.command import parse, run
from unnoise.cli.first_stage import find_or_train_autoencoder
from unnoise.cli.results import print_results
from unnoise.cli.typed import is_sweep
from unnoise.config.identity import OUTPUTS, SWEEP, root_of
from unnoise.config.problems import ConfigError, Problem, errors_in
from unnoise.config.schema import arguments
from unnoise.distributed.environment import place
from unnoise.distributed.memory import keep_memory
from unnoise.distributed.signals import end_on_signals, leave
from unnoise.runs.identity import Argument, Role

LAST_ERROR = 2
"""The greatest status of a run that ended by itself; above are signals and ranks that failed."""
_PLACE = place()


def main() -> None:
    """The command's entry point."""
    end_on_signals()
    keep_memory()
    try:
        if is_sweep():
            from unnoise.cli.sweep import run as sweep

            sweep.run(check, train)
        elif _PLACE.rank > 0:
            follow()
        else:
            run("train", check, train, find_or_train_autoencoder)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
    except SystemExit as end:
        if isinstance(end.code, int) and end.code > LAST_ERROR and not is_sweep():
            leave(end.code)
        raise


def check(config: dict[str, Any]) -> list[Problem]:
    """All that is wrong with a run's config."""
    from unnoise.training.check import problems_of

    return problems_of(config)


def follow() -> None:
    """Train as a process that is not the first: rank 0 says where, and compares the configs."""
    from unnoise.training.start import start

    config, found = parse("train")
    if config is None or errors_in(found):
        sys.exit(2)  # rank 0 says why
    start(config)


def train(config: dict[str, Any]) -> None:
    """Train the run in Hydra's output directory, and say where its results are."""
    from unnoise.training.start import start, start_from

    if _PLACE.rank > 0:  # a launcher started one on each node
        start(config)
        return
    hydra = HydraConfig.get()
    run_dir, is_job = Path(hydra.runtime.output_dir), hydra.mode == RunMode.MULTIRUN
    if config["sweep"] == "status" and not is_job:
        raise ConfigError("sweep: status is of the jobs of a sweep: add -m")
    try:
        checkpoint, begun = start_from(run_dir, config, is_job), time.monotonic()
        start(config, run_dir, checkpoint, _origin(hydra, config))
        print_results(run_dir, config["name"], time.monotonic() - begun)
    finally:
        outputs = OUTPUTS.resolve()
        with suppress(OSError):  # Hydra makes them also for a run that is then refused
            for folder in (run_dir, *(p for p in run_dir.parents if p.is_relative_to(outputs))):
                folder.rmdir()


def _origin(hydra: Any, config: dict[str, Any]) -> dict[str, Any]:
    """What the manifest says of the command: what was typed and chosen, and of which sweep."""
    keys = arguments(config["_target_"])
    typed = [
        each
        for each in hydra.overrides.task
        if keys.get(root_of(each), Argument()).role not in (Role.MACHINE, Role.CALL)
    ]
    of_sweep = hydra.mode == RunMode.MULTIRUN and SWEEP in os.environ
    return {
        "overrides": typed,
        "choices": OmegaConf.to_container(hydra.runtime.choices),
        "sweep": f"sweep {os.environ[SWEEP]}" if of_sweep else None,
    }
