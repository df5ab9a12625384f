"""unnoise-figure: pictures of what diffusion models do."""

import dataclasses
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from unnoise.cli.checks import device_problems, folder_problems, right_keys, run_problems
from unnoise.cli.command import run as run_command
from unnoise.config.nodes import DATA, instantiate, resolve_target
from unnoise.config.problems import ConfigError, Problem
from unnoise.config.schema import construction_problems, problems
from unnoise.data.source import ImageSource
from unnoise.diffusion.samplers import Sampler
from unnoise.report.figures.forward import DataFigure
from unnoise.report.figures.sampling import ModelFigure, Samplers
from unnoise.runs.layout import RunDirectory

FIGURES = Path("outputs") / "figures"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be pictured: one field for each key of ``conf/figure.yaml``."""

    figure: DataFigure | ModelFigure
    name: str
    run: str | None
    data: ImageSource | None
    sampler: Sampler | None
    averaged: bool
    device: str
    out: str | None


def main() -> None:
    """The command's entry point."""
    run_command("figure", check, draw)


def check(config: dict[str, Any]) -> Iterator[list[Problem]]:
    """All that is wrong with a request, short of what only the run can tell."""
    found = problems(config, Request)
    right = right_keys(config, found)
    found += construction_problems(config, sorted({"figure", "data", "sampler"} & right), "cpu")
    if "device" in right:
        found += device_problems(config["device"])
    missing = []
    if "run" in right and config["run"] is not None:
        missing = run_problems("run", config["run"])
    found += missing
    if {"figure", "run", "data", "sampler"} <= right:
        found += _source_problems(config, resolve_target(config["figure"]["_target_"]))
    if {"out", "run"} <= right and not missing:
        found += _out_problems(config["out"], config["run"])
    yield found


def _source_problems(config: dict[str, Any], figure: Any) -> Iterator[Problem]:
    """Whether a figure is given what it is drawn from."""
    if issubclass(figure, ModelFigure) and config["run"] is None:
        yield Problem("run", "missing: this figure takes a model, give it as run=...")
    if issubclass(figure, DataFigure) and config["run"] is not None:
        message = "this figure takes data, not a run: leave it out, or name another figure"
        yield Problem("run", message)
    if issubclass(figure, DataFigure) and config["data"] is None:
        yield Problem("data", "missing: this figure takes data, give it as data=...")
    if config["sampler"] is not None and issubclass(figure, DataFigure | Samplers):
        own = " but those of figure.samplers" if issubclass(figure, Samplers) else ""
        yield Problem("sampler", f"this figure takes no sampler{own}: leave it out")


def _out_problems(out: str | None, run: str | None) -> Iterator[Problem]:
    if out is None:
        yield from folder_problems("out", _folder(run))
    elif not out.endswith(".png"):
        yield Problem("out", f"{out} must end in .png")
    elif Path(out).is_dir():
        yield Problem("out", f"{out} is a folder")
    else:
        yield from folder_problems("out", Path(out).parent)


def _folder(run: str | None) -> Path:
    """Where pictures go of which it is not said where."""
    from unnoise.runs.checkpoints import find_checkpoint

    return FIGURES if run is None else RunDirectory.of(find_checkpoint(Path(run))).figures


def draw(config: dict[str, Any]) -> None:
    """Draw, write, and say where."""
    started = time.monotonic()
    request = Request(**{key: instantiate(value) for key, value in config.items()})
    try:
        picture = _picture(request)
    except (ValueError, FileNotFoundError) as error:  # what only the run or the data could tell
        raise ConfigError(str(error)) from error
    path = Path(request.out or _folder(request.run) / f"{request.name}.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
    width, height = picture.size
    print(f"{request.name}: {width} × {height} pixels in {time.monotonic() - started:.0f} s")
    print(f"  {os.path.relpath(path)}")


def _picture(request: Request) -> Image.Image:
    from unnoise.models.trained import load

    figure, data = request.figure, request.data
    if isinstance(figure, DataFigure):
        assert data is not None
        data.prepare()
        return figure.draw(data)
    assert request.run is not None
    trained = load(request.run, averaged=request.averaged, device=request.device)
    data = data or instantiate(trained.config["data"], DATA)
    sampler = request.sampler or trained.sampler
    for scale in figure.guidance(sampler):
        trained.check_guidance(scale)
    return figure.draw(trained.model, sampler, data)
