"""unnoise-evaluate: measure how well a run does."""

import time
from argparse import Namespace
from collections.abc import Iterator
from typing import Any

from unnoise.cli import timing, wanted
from unnoise.cli.command import run, stop_if_wrong
from unnoise.cli.hydra_app import folders
from unnoise.cli.request import between, is_whole, read
from unnoise.config.faults import run_fault
from unnoise.config.nodes import instantiate, resolve_target
from unnoise.config.problems import Check, ConfigError, Problem, errors_in
from unnoise.distributed.environment import place
from unnoise.evaluation.comparison import wanted_runs
from unnoise.evaluation.measure import Measure
from unnoise.files import folder_fault
from unnoise.runs.layout import shown


def main() -> None:
    """The command's entry point."""
    run("evaluate", check, evaluate, find_or_train_all)


def check(config: dict[str, Any]) -> list[Problem]:
    """All that is wrong with the keys of a measure, with the run, its data and its classifiers."""
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


def find_or_train_all(
    arguments: Namespace, config: dict[str, Any], found: list[Problem], check: Check
) -> str | None:
    """``trained_runs=[…]`` for a config that compares ``runs``: found, or trained now.

    The keys of ``SHARED`` that were typed are those of all runs. All are checked before the first
    is trained. None if the config compares none, or is wrong, which is to be reported first.
    """
    if config.get("runs") is None or config.get("trained_runs") is not None or arguments.multirun:
        return None
    if errors_in([*found, *check(config)]):
        return None
    of, more = folders(arguments), wanted.shared(arguments.overrides)
    runs = wanted_runs(config["runs"])
    checked = {name: wanted.checked(each, more, of) for name, each in runs.items()}
    wrong = [Problem(f"runs.{k}", str(each)) for k, (_, some) in checked.items() for each in some]
    data = {name: one["data"] for name, (one, _) in checked.items() if "data" in one}
    stop_if_wrong(wrong or [*instantiate(config).unmeasurable(data)])
    trained = [
        timing.trained_within(each, 60 * minutes, more, of, f"{name}, {minutes:g} min")
        for minutes in config["minutes"]
        for name, each in runs.items()
    ]
    return f"trained_runs=[{','.join(map(str, trained))}]"


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
