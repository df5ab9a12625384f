"""unnoise-extractor: train the network that a data set's own distances see pictures by."""

import dataclasses
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from unnoise.cli.checks import folder_problems, right_keys
from unnoise.cli.command import run as run_command
from unnoise.config.nodes import instantiate
from unnoise.config.problems import ConfigError, Problem
from unnoise.config.schema import construction_problems, problems
from unnoise.data.source import ImageSource, own_extractor
from unnoise.evaluation.extractors.find import train_extractor

FOLDER = Path("outputs") / "extractors"
TAKEN = ("auto", "inception")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be trained: one field for each key of ``conf/extractor.yaml``."""

    data: ImageSource
    name: str | None
    seed: Annotated[int, Field(ge=0)]
    steps: Annotated[int, Field(ge=2)]
    out: str | None


def main() -> None:
    """The command's entry point."""
    run_command("extractor", check, fit)


def check(config: dict[str, Any]) -> Iterator[list[Problem]]:
    """All that is wrong with a request, before pictures are read."""
    found = problems(config, Request)
    right = right_keys(config, found)
    if "name" in right and config["name"] is not None:
        found += _name_problems(config["name"])
    if "out" in right:
        found += folder_problems("out", Path(config["out"] or FOLDER))
    if "data" in right:
        wrong = list(construction_problems(config, ["data"], device="cpu"))
        found += wrong or _data_problems(instantiate(config["data"]), config)
    yield found


def _name_problems(name: str) -> Iterator[Problem]:
    if name in TAKEN:
        yield Problem("name", f"{name} has a meaning of its own: take another")
    elif not re.fullmatch("[a-z][a-z0-9_]*", name):
        yield Problem("name", f"{name!r} is to become a part of fd_{name}: use a-z, 0-9 and _")


def _data_problems(data: ImageSource, config: dict[str, Any]) -> list[Problem]:
    try:
        data.check()
        classes = data.class_names()
    except (FileNotFoundError, ValueError, ImportError) as error:
        return [Problem("data", str(error))]
    found = []
    if len(classes) < 2:
        found.append(Problem("data", "its pictures have no classes that could be told apart"))
    if config.get("name") is None and own_extractor(data) is None:
        found.append(Problem("name", "missing: what distances are to be called, as in name=pets"))
    return found


def fit(config: dict[str, Any]) -> None:
    """Train, measure, write, and say where."""
    request = Request(**{key: instantiate(value) for key, value in config.items()})
    name = request.name or own_extractor(request.data)
    assert name is not None  # checked
    started = time.monotonic()
    try:
        extractor = train_extractor(request.data, name, request.seed, request.steps)
    except (FileNotFoundError, ValueError) as error:
        raise ConfigError(f"data: {error}") from error
    learned = extractor.learned
    key = f"{learned.data[:8]}_seed{learned.seed}_{learned.steps}"
    path = Path(request.out or FOLDER) / f"{name}_{key}.safetensors"
    digest = extractor.save(path)
    seconds = time.monotonic() - started
    print(f"{len(learned.classes)} classes, {learned.steps} steps in {seconds:.0f} s")
    print(f"  accuracy   {learned.accuracy:.1%} on real held-out pictures")
    print(f"  size       {path.stat().st_size / 1000:.0f} kB")
    print(f"  digest     {digest}")
    print(f"  extractor  {os.path.relpath(path)}")
