"""unnoise-sample: draw pictures from a trained model."""

import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field

from unnoise.cli.command import run as run_command
from unnoise.cli.config import ConfigError, Problem, instantiate
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


def check(config: dict[str, Any]) -> Iterator[list[Problem]]:
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
    if not any(problem.key == "device" for problem in found):
        try:
            torch.empty(0, device="cpu" if config["device"] == "auto" else config["device"])
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            found.append(Problem("device", f"{config['device']} cannot be used here: {reason}"))
    yield found


def draw(config: dict[str, Any]) -> None:
    """Draw, write, and say where."""
    from unnoise.api import load

    request = Request(**{key: instantiate(value) for key, value in config.items()})
    started = time.monotonic()
    try:
        trained = load(request.run, averaged=request.averaged, device=request.device)
        sampler = config["sampler"] or trained.config["sampler"]
        about = {
            "checkpoint": str(trained.checkpoint),
            "sampler": sampler,
            **{k: config[k] for k in ("n", "first", "seed", "steps", "labels", "averaged")},
        }
        kind = sampler["stepper"]["_target_"].rpartition(".")[2].lower()
        steps = request.steps or sampler["steps"] or "all"
        out = Path(request.out or _folder(trained.checkpoint, f"{kind}-{steps}", about))
        out.mkdir(parents=True, exist_ok=True)
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
    except ValueError as error:  # what only the checkpoint could tell
        raise ConfigError(str(error)) from error
    pictures.grid().save(out / "grid.png")
    np.savez_compressed(out / "images.npz", arr_0=pictures.nhwc())
    if request.singles:
        (out / "images").mkdir(exist_ok=True)
        for number, image in enumerate(pictures.images(), request.first):
            image.save(out / "images" / f"{number:06d}.png")
    (out / "about.json").write_text(json.dumps(about, indent=2) + "\n")
    print(
        f"{len(pictures)} pictures in {time.monotonic() - started:.0f} s, by {kind}, {steps} steps"
    )
    for name, file in (("grid", "grid.png"), ("array", "images.npz"), ("singles", "images")):
        if (out / file).exists():
            print(f"  {name:<8} {os.path.relpath(out / file)}")


def _folder(checkpoint: Path, kind: str, about: dict[str, Any]) -> Path:
    """A folder of its own for each request: in the run, or here for a file from elsewhere."""
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:8]
    home = checkpoint.parents[1] if checkpoint.parent.name == "checkpoints" else Path()
    return home / "drawn" / f"{kind}_{digest}"
