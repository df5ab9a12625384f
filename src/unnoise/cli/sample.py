"""unnoise-sample: draw pictures from a trained model."""

import dataclasses
import json
import os
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from unnoise.cli.command import run as run_command
from unnoise.cli.config import Problem, instantiate
from unnoise.cli.preflight import construction_problems, problems
from unnoise.diffusion.samplers import Sampler

Count = Annotated[int, Field(ge=1)]
Number = Annotated[int, Field(ge=0)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be drawn: one field for each key of ``conf/sample.yaml``."""

    run: str
    n: Count
    seed: Number
    first: Number
    batch_size: Count
    sampler: Sampler | None
    steps: Count | None
    labels: list[Number] | None
    averaged: bool
    device: str
    out: str | None
    singles: bool


def main() -> None:
    """The command's entry point."""
    run_command("sample", check, draw)


def check(config: dict[str, Any]) -> list[Problem]:
    """All that is wrong with a request, short of what only the checkpoint can tell."""
    from unnoise.api import find_checkpoint

    found = problems(config, Request)
    if not any(problem.key.startswith("sampler") for problem in found):
        found += construction_problems(config, ["sampler"], device="cpu")
    if not any(problem.key == "run" for problem in found):
        try:
            find_checkpoint(Path(config["run"]))
        except FileNotFoundError as error:
            found.append(Problem("run", str(error)))
    return found


def draw(config: dict[str, Any]) -> None:
    """Draw, write, and say where."""
    from unnoise.api import load

    request = Request(**{key: instantiate(value) for key, value in config.items()})
    started = time.monotonic()
    trained = load(request.run, averaged=request.averaged, device=request.device)
    pictures = trained.sample(
        request.n,
        sampler=request.sampler,
        steps=request.steps,
        seed=request.seed,
        first=request.first,
        labels=request.labels,
        batch_size=request.batch_size,
        progress=True,
    )
    sampler = config["sampler"] or trained.config["sampler"]
    kind = sampler["stepper"]["_target_"].rpartition(".")[2].lower()
    steps = request.steps or sampler["steps"] or "all"
    weights = "" if request.averaged else "_last-weights"
    run_dir = trained.checkpoint.parent.parent
    out = Path(request.out or run_dir / "drawn" / f"{kind}-{steps}_seed{request.seed}{weights}")
    out.mkdir(parents=True, exist_ok=True)
    pictures.grid().save(out / "grid.png")
    np.savez_compressed(out / "images.npz", arr_0=pictures.nhwc())
    if request.singles:
        (out / "images").mkdir(exist_ok=True)
        for number, image in enumerate(pictures.images(), request.first):
            image.save(out / "images" / f"{number:06d}.png")
    about = {
        "checkpoint": str(trained.checkpoint),
        "sampler": sampler,
        **{k: config[k] for k in ("n", "first", "seed", "steps", "labels", "averaged")},
    }
    (out / "about.json").write_text(json.dumps(about, indent=2) + "\n")
    print(
        f"{len(pictures)} pictures in {time.monotonic() - started:.0f} s, by {kind}, {steps} steps"
    )
    for name, file in (("grid", "grid.png"), ("array", "images.npz"), ("singles", "images")):
        if (out / file).exists():
            print(f"  {name:<8} {os.path.relpath(out / file)}")
