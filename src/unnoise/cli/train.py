"""unnoise-train: train a diffusion model as a config says."""

import inspect
import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf

from unnoise.cli.command import is_sweep, parse, run
from unnoise.config.identity import SWEEP, resume_problems, run_directory
from unnoise.config.nodes import instantiate, resolve_target
from unnoise.config.problems import UNKNOWN, ConfigError, Problem
from unnoise.config.schema import construction_problems, problems
from unnoise.distributed.environment import place, requeued
from unnoise.distributed.launcher import RankFailed, train_on_ranks
from unnoise.distributed.signals import end_on_signals, leave
from unnoise.runs.layout import RunDirectory, step_of
from unnoise.runs.lock import RunLocked
from unnoise.runs.lock import check as check_lock

if TYPE_CHECKING:
    from unnoise.networks.conditioning import Conditioner
    from unnoise.training.recipe import Recipe

LAST_ERROR = 2
"""The greatest status of a run that ended by itself; above are signals and ranks that failed."""
LIGHTNING = ("callbacks", "logger", "trainer")


_PLACE = place()


def main() -> None:
    """The command's entry point."""
    end_on_signals()
    try:
        if is_sweep():
            from unnoise.cli.sweep import run as sweep

            sweep.run(check, train)
        elif _PLACE.rank > 0:
            follow()
        else:
            run("train", check, train)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
    except SystemExit as end:
        if isinstance(end.code, int) and end.code > LAST_ERROR and not is_sweep():
            leave(end.code)
        raise


def follow() -> None:
    """Train as a process that is not the first: rank 0 says where, and compares the configs."""
    config, found = parse("train")
    if config is None or any(problem.severity == "error" for problem in found):
        sys.exit(2)  # rank 0 says why
    _share(experiment_of(config), config, None, None, None)


def check(config: dict[str, Any]) -> Iterator[list[Problem]]:
    """All that is wrong with a run's config: keys and values, constructors, and rules across.

    What needs Lightning comes second, since importing it takes longer than all the rest.
    """
    if config["resume"]:  # before imports that take longer
        try:
            check_lock(Path(run_directory(_root_=OmegaConf.create(config))))
        except RunLocked as error:
            yield [Problem("resume", str(error))]
            return
    from unnoise.training.recipe import Recipe
    from unnoise.training.rules import logger_rules, rules

    try:
        schema = resolve_target(config.get("_target_"))
    except ConfigError as error:
        yield [Problem("_target_", str(error))]
        return
    if not (inspect.isclass(schema) and issubclass(schema, Recipe)):
        yield [Problem("_target_", f"{config['_target_']} is no Recipe")]
        return
    whole, config = config, {key: value for key, value in config.items() if key != "_target_"}
    keys = inspect.signature(schema).parameters
    quick = {key: UNKNOWN if key in LIGHTNING else value for key, value in config.items()}
    found = problems(quick, schema)
    right = set(config) - {problem.key.partition(".")[0] for problem in found}
    found += construction_problems(config, [k for k in ("network", "conditioning") if k in right])
    others = ("data", "schedule", "prediction", "objective", "times", "sampler")
    found += construction_problems(config, [k for k in others if k in right], device="cpu")
    if not found and isinstance(config["resume"], str):
        found += resume_problems(whole)
    yield found or rules(config)

    slow = {key: config[key] if key in LIGHTNING else UNKNOWN for key in config if key in keys}
    found = problems(slow, schema)
    yield found or construction_problems(config, ["callbacks"], device="cpu") + logger_rules(config)


def train(config: dict[str, Any]) -> None:
    """Train the run in Hydra's output directory, and say where its results are."""
    if _PLACE.rank > 0:  # a launcher started one on each node
        _share(experiment_of(config), config, None, None, None)
        return
    hydra = HydraConfig.get()
    run_dir = Path(hydra.runtime.output_dir)
    try:
        _train(config, run_dir, hydra)
    finally:
        with suppress(OSError):  # Hydra makes it also for a run that is then refused
            run_dir.rmdir()


def _train(config: dict[str, Any], run_dir: Path, hydra: Any) -> None:
    from unnoise.runs.checkpoints import DamagedCheckpoints, newest_whole
    from unnoise.runs.manifest import pruned

    is_job = hydra.mode == RunMode.MULTIRUN
    if config["sweep"] == "status" and not is_job:
        raise ConfigError("sweep: status is of the jobs of a sweep: add -m")
    try:
        goes_on = config["resume"] or requeued() or is_job
        check_lock(run_dir)
        checkpoint = newest_whole(run_dir) if goes_on else None
    except DamagedCheckpoints as error:
        raise ConfigError(f"resume: {error}") from error
    shown = _short(run_dir)
    if checkpoint is not None:
        print(f"resuming {shown} at step {step_of(checkpoint)}")
    elif config["resume"] and not is_job:
        print("resume: no checkpoint of an earlier run of this configuration, starting at step 0")
    elif RunDirectory(run_dir).config.exists() and not goes_on:
        raise ConfigError(f"{shown} holds a run already; resume={shown} goes on with it")
    experiment = experiment_of(config)
    begun = time.monotonic()
    _share(experiment, config, run_dir, checkpoint, _origin(hydra))
    found = _report(run_dir) | RunDirectory(run_dir).results()
    minutes, seconds = divmod(int(time.monotonic() - begun), 60)
    why = pruned(run_dir)
    ended = "done in" if why is None else f"pruned: {why}, after"
    print(f"\n{experiment.name}: {ended} {minutes} min {seconds:02d} s")
    for name, path in found.items():
        print(f"  {name:<16} {_short(path)}")
    print(f"  {'draw more':<16} unnoise-sample run={shown}")


def _share(
    experiment: "Recipe",
    config: dict[str, Any],
    run_dir: Path | None,
    checkpoint: Path | None,
    origin: dict[str, Any] | None,
) -> None:
    """Train as the rank that this process is, or on the ranks of this machine that it starts."""
    from unnoise.distributed.group import ConfigMismatch, RankLost, RankTimeout
    from unnoise.training.callbacks.checkpoints import NotFinite, NotSaved
    from unnoise.training.loop import devices_of, fit
    from unnoise.untrusted import UnsafeFile

    devices, nodes = devices_of(experiment), config["trainer"].get("num_nodes", 1)
    lost = ConfigMismatch, RankLost, RankTimeout
    if devices == 1 or _PLACE.trains(nodes):
        try:
            fit(experiment, config, run_dir, checkpoint, origin)
        except (*lost, RunLocked, NotFinite, NotSaved, UnsafeFile) as error:
            sys.exit(str(error))
        return
    orders = {
        "config": config,
        "run_dir": None if run_dir is None else str(run_dir),
        "checkpoint": None if checkpoint is None else str(checkpoint),
        "origin": origin,
    }
    try:
        train_on_ranks(orders, devices // nodes, nodes)
    except RankFailed as error:
        print(error, file=sys.stderr)
        sys.exit(error.status)
    except ConfigMismatch as error:
        sys.exit(str(error))


def experiment_of(config: dict[str, Any]) -> "Recipe":
    """What a checked config stands for, with all that it needs made ready on this machine."""
    import torch

    from unnoise.training.recipe import Recipe
    from unnoise.training.rules import require_devices

    require_devices(config["trainer"])
    torch.manual_seed(config["seed"])
    experiment = instantiate(config)
    assert isinstance(experiment, Recipe)
    _load_text_encoder(experiment.conditioning)
    if _PLACE.local_rank == 0:
        try:
            experiment.data.prepare()
        except (FileNotFoundError, ValueError) as error:
            raise ConfigError(f"data: {error}") from error
    if _PLACE.rank == 0:
        _find_extractors(experiment)
    return experiment


def _origin(hydra: Any) -> dict[str, Any]:
    """What the manifest says of the command: what was typed and chosen, and of which sweep."""
    left_out = ("logger", "trainer", "resume", "rank_timeout", "metric", "sweep")
    typed = [each for each in hydra.overrides.task if not each.lstrip("+~").startswith(left_out)]
    of_sweep = hydra.mode == RunMode.MULTIRUN and SWEEP in os.environ
    return {
        "overrides": typed,
        "choices": OmegaConf.to_container(hydra.runtime.choices),
        "sweep": f"sweep {os.environ[SWEEP]}" if of_sweep else None,
    }


def _report(run_dir: Path) -> dict[str, Path]:
    """Write the page of the run; that it could not be written does not undo the training."""
    from unnoise.report.page import write

    path = RunDirectory(run_dir).report
    try:
        write(path, [run_dir])
    except Exception as error:
        print(f"warning: no report was written: {error!r}", file=sys.stderr)
        return {}
    return {"report": path}


def _find_extractors(experiment: "Recipe") -> None:
    """Before anything is run: one that only fails when it is read would be missed only by then."""
    import torch

    from unnoise.training.callbacks.quality import Quality

    for name, callback in experiment.callbacks.items():
        if isinstance(callback, Quality):
            try:
                callback.find(experiment.data, torch.device("cpu"))
            except (FileNotFoundError, ValueError) as error:
                raise ConfigError(f"callbacks.{name}: {error}") from error


def _load_text_encoder(conditioner: "Conditioner | None") -> None:
    """Before anything is run: a text encoder that is not there would be missed only by then."""
    from unnoise.networks.conditioning import TextConditioner

    for part in conditioner.modules() if conditioner is not None else ():
        if isinstance(part, TextConditioner):
            try:
                part.encoder.encode(["a picture"])
            except ValueError as error:
                raise ConfigError(f"conditioning.encoder: {error}") from error


def _short(path: Path) -> str:
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
