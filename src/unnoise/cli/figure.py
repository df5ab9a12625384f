"""unnoise-figure: pictures of what diffusion models do."""

import dataclasses
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from unnoise.cli.command import run as run_command
from unnoise.cli.config import UNKNOWN, ConfigError, Problem, instantiate, resolve_target
from unnoise.cli.devices import device_problems
from unnoise.cli.preflight import construction_problems, problems
from unnoise.cli.request import home, run_problems
from unnoise.data.loading import ImageSource
from unnoise.diffusion.samplers import Sampler
from unnoise.figures.forward import DataFigure
from unnoise.figures.sampling import ModelFigure

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
    wrong = {problem.key.partition(".")[0] for problem in found}
    wrong |= {key for key, value in config.items() if value is UNKNOWN}
    parts = [key for key in ("figure", "data", "sampler") if key not in wrong]
    found += construction_problems(config, parts, device="cpu")
    if "device" not in wrong:
        found += device_problems(config["device"])
    if "run" not in wrong and config["run"] is not None:
        found += run_problems("run", config["run"])
    if not wrong & {"figure", "run", "data"}:
        found += _source_problems(config, resolve_target(config["figure"]["_target_"]))
    if "out" not in wrong and not str(config["out"] or ".png").endswith(".png"):
        found.append(Problem("out", f"{config['out']} must end in .png"))
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


def draw(config: dict[str, Any]) -> None:
    """Draw, write, and say where."""
    started = time.monotonic()
    request = Request(**{key: instantiate(value) for key, value in config.items()})
    try:
        picture, folder = _picture(request)
    except (ValueError, FileNotFoundError) as error:  # what only the run or the data could tell
        raise ConfigError(str(error)) from error
    path = Path(request.out or folder / f"{request.name}.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
    width, height = picture.size
    print(f"{request.name}: {width} × {height} pixels in {time.monotonic() - started:.0f} s")
    print(f"  {os.path.relpath(path)}")


def _picture(request: Request) -> tuple[Image.Image, Path]:
    """The picture, and the folder where it belongs."""
    from unnoise.api import load

    figure, data = request.figure, request.data
    if isinstance(figure, DataFigure):
        assert data is not None
        data.prepare()
        return figure.draw(data), FIGURES
    assert request.run is not None
    trained = load(request.run, averaged=request.averaged, device=request.device)
    data = data or instantiate(trained.config["data"])
    picture = figure.draw(trained.model, request.sampler or trained.sampler, data)
    return picture, home(trained.checkpoint) / "figures"
