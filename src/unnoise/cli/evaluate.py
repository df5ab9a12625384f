"""unnoise-evaluate: measure how well a run does."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unnoise.cli.checks import device_problems, folder_problems, right_keys, run_problems
from unnoise.cli.command import run as run_command
from unnoise.config.nodes import instantiate, resolve_target
from unnoise.config.problems import ConfigError, Problem
from unnoise.config.schema import built, problems
from unnoise.distributed.environment import place
from unnoise.evaluation.measure import Measure
from unnoise.evaluation.quality import ELSEWHERE
from unnoise.runs.checkpoints import find_checkpoint
from unnoise.runs.layout import RunDirectory, shown


def main() -> None:
    """The command's entry point."""
    run_command("evaluate", check, evaluate)


def check(config: dict[str, Any]) -> Iterator[list[Problem]]:
    """All that is wrong with the keys of a measure, with the run, its data and what judges it."""
    try:
        schema = resolve_target(config["_target_"])
    except ConfigError as error:
        yield [Problem("_target_", str(error))]
        return
    assert isinstance(schema, type)
    assert issubclass(schema, Measure)
    if place().world_size > 1 and not schema.shared:
        yield [Problem("measure", f"{schema.name} is measured by one process: no torchrun")]
    keys = {key: value for key, value in config.items() if key != "_target_"}
    found = problems(keys, schema)
    right = right_keys(keys, found)
    objects, wrong = built(keys, sorted(right), "cpu")
    found += wrong
    measure = schema(**objects) if right == set(keys) and not found else None
    if measure is not None:
        found += measure.conflicts()
    if "device" in right:
        found += device_problems(keys["device"])
    if "run" in right and keys["run"] is not None:
        found += run_problems("run", keys["run"]) or folder_problems("run", _folder(keys["run"]))
    elif "run" in right:
        found += folder_problems("images", ELSEWHERE)
    yield found
    if measure is not None and not found:
        yield list(measure.problems(config))


def _folder(run: str) -> Path:
    """Where the results go that are of a run."""
    return RunDirectory.of(find_checkpoint(Path(run))).evaluation


def evaluate(config: dict[str, Any]) -> None:
    """Measure, print, write, and say where; with several ranks the first one does."""
    measure: Measure = instantiate(config)
    started = time.monotonic()
    try:
        result = measure.measure(config)
    except (FileNotFoundError, ValueError) as error:  # what only the files could tell
        raise ConfigError(str(error)) from error
    if result is None:
        return
    print(f"{result.table}\n\n{measure.name} in {time.monotonic() - started:.0f} s")
    for path in result.files:
        print(f"  {shown(path)}")
    if measure.run is not None:
        print(f"  on one page: unnoise-report {measure.run}")
