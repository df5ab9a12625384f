"""unnoise-evaluate: measure how well a run does."""

import time
from collections.abc import Iterator
from typing import Any

from unnoise.cli.command import run
from unnoise.cli.request import between, is_whole, read
from unnoise.config.faults import run_fault
from unnoise.config.nodes import instantiate, resolve_target
from unnoise.config.problems import ConfigError, Problem
from unnoise.distributed.environment import place
from unnoise.evaluation.measure import Measure
from unnoise.files import folder_fault
from unnoise.runs.layout import shown


def main() -> None:
    """The command's entry point."""
    run("evaluate", check, evaluate)


def check(config: dict[str, Any]) -> list[Problem]:
    """All that is wrong with the keys of a measure, with the run, its data and what judges it."""
    try:
        schema = resolve_target(config["_target_"])
    except ConfigError as error:
        return [Problem("_target_", str(error))]
    assert isinstance(schema, type)
    assert issubclass(schema, Measure)
    measure, found = read(schema, {k: v for k, v in config.items() if k != "_target_"})
    if place().world_size > 1 and not schema.shared:
        found.append(Problem("measure", f"{schema.name} is measured by one process: no torchrun"))
    found += between(measure, _rules(measure))
    return found if found or not is_whole(measure) else list(measure.problems(config))


def _rules(measure: Measure) -> Iterator[Problem]:
    yield from measure.conflicts()
    given = measure.run is not None
    if not (given and run_fault(str(measure.run))) and (fault := folder_fault(measure.folder)):
        yield Problem("run" if given else "images", fault)


def evaluate(config: dict[str, Any]) -> None:
    """Measure, print, write, and say where; with several ranks the first one does."""
    measure: Measure = instantiate(config)
    started = time.monotonic()
    try:
        result = measure.measure(config)
    except (FileNotFoundError, ValueError) as error:  # shown only by the files
        raise ConfigError(str(error)) from error
    if result is None:
        return
    print(f"{result.table}\n\n{measure.name} in {time.monotonic() - started:.0f} s")
    for path in result.files:
        print(f"  {shown(path)}")
    if measure.run is not None:
        print(f"  on one page: unnoise-report {measure.run}")
