"""unnoise-evaluate: measure how well a run does."""

import os
from collections.abc import Iterator
from typing import Any

from unnoise.cli import adherence, likelihood, quality, quality_request
from unnoise.cli.command import run as run_command
from unnoise.config.problems import Problem

CHECKS = {
    "quality": quality_request.check,
    "adherence": adherence.check,
    "likelihood": likelihood.check,
}
JOBS = {
    "quality": quality.evaluate,
    "adherence": adherence.evaluate,
    "likelihood": likelihood.evaluate,
}
"""By the names in ``conf/measure``."""


def main() -> None:
    """The command's entry point."""
    run_command("evaluate", check, evaluate)


def check(config: dict[str, Any]) -> Iterator[list[Problem]]:
    """All that is wrong with a request, the run, its data and the judges included."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and config["measure"] != "quality":
        yield [Problem("measure", f"{config['measure']} is measured by one process: no torchrun")]
    yield from CHECKS[config["measure"]](config)


def evaluate(config: dict[str, Any]) -> None:
    """Measure, print, write, and say where."""
    JOBS[config["measure"]](config)
