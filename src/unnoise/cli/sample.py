"""unnoise-sample: draw pictures from a trained model."""

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unnoise.cli.checks import device_problems, right_keys, run_problems
from unnoise.cli.command import run as run_command
from unnoise.cli.request import Request, drawn_folder, request_problems
from unnoise.config.nodes import instantiate
from unnoise.config.problems import ConfigError, Problem
from unnoise.config.schema import construction_problems, problems
from unnoise.data.given import read_pictures
from unnoise.diffusion.editing import Edit
from unnoise.distributed.group import gather, join
from unnoise.models.classifier import NoisyClassifier, classifier_file
from unnoise.report.sheets import grid

if TYPE_CHECKING:
    from unnoise.api import Model, Pictures

UNTOLD = ("run", "sampler", "batch_size", "device", "out", "singles")
"""Keys that do not change what is drawn, or are told otherwise."""
SHOWN = 8  # drawn pictures beside those that were given


def main() -> None:
    """The command's entry point."""
    run_command("sample", check, draw)


def check(config: dict[str, Any]) -> Iterator[list[Problem]]:
    """All that is wrong with a request, short of what only the checkpoint can tell."""
    found = problems(config, Request)
    right = right_keys(config, found)
    whole = not found and right == set(config)
    found += construction_problems(config, {"sampler"} & right, device="cpu")
    if "device" in right:
        found += device_problems(config["device"])
    if "run" in right:
        found += run_problems("run", config["run"])
    if whole:
        found += request_problems(Request(**{**config, "sampler": None}))
    yield found


def draw(config: dict[str, Any]) -> None:
    """Draw, write, and say where; under torchrun each process draws a part, the first writes."""
    from unnoise.api import Pictures, load

    request = Request(**{key: instantiate(value) for key, value in config.items()})
    started = time.monotonic()
    try:
        trained = load(request.run, averaged=request.averaged, device=request.device)
        fit = trained.config["data"].get("fit", "crop")
        edit, given = request.make_edit(request.n, trained.model.shape, fit)
        parts = gather(_drawn(trained, request, edit))
    except ValueError as error:  # what only the checkpoint could tell
        raise ConfigError(str(error)) from error
    if not parts:
        return
    pictures = Pictures.joined(part for part in parts if part is not None)
    sampler = config["sampler"] or trained.config["sampler"]
    kind = sampler["stepper"]["_target_"].rpartition(".")[2].lower()
    steps = request.steps or sampler["steps"] or "all"
    told = {key: value for key, value in config.items() if key not in UNTOLD}
    about = {"checkpoint": str(trained.checkpoint), **told, "sampler": sampler}
    name = "-".join(str(part) for part in (request.edit, kind, steps) if part)
    out = Path(request.out or _folder(trained.checkpoint, name, about))
    out.mkdir(parents=True, exist_ok=True)
    written = {"grid": "grid.png", "array": "images.npz"}
    pictures.grid().save(out / "grid.png")
    np.savez_compressed(out / "images.npz", arr_0=pictures.nhwc())
    if given:
        written["compared"] = "comparison.png"
        comparison(given, pictures).save(out / "comparison.png")
    if request.singles:
        written["singles"] = "images"
        (out / "images").mkdir(exist_ok=True)
        for earlier in (out / "images").glob("[0-9]" * 6 + ".png"):
            earlier.unlink()
        for number, image in enumerate(pictures.images(), request.first):
            image.save(out / "images" / f"{number:06d}.png")
    (out / "about.json").write_text(json.dumps(about, indent=2) + "\n")
    print(
        f"{len(pictures)} pictures in {time.monotonic() - started:.0f} s, by {kind}, {steps} steps"
    )
    for name, file in written.items():
        print(f"  {name:<8} {os.path.relpath(out / file)}")


def _drawn(trained: "Model", request: Request, edit: Edit | None) -> "Pictures | None":
    """This process's pictures, with what else the request names read from its files."""
    from unnoise.api import load

    here = join()
    first, end = (request.n * k // here.world_size for k in (here.rank, here.rank + 1))
    if first == end:
        return None
    shape, device = trained.model.shape, trained.model.device
    fit = trained.config["data"].get("fit", "crop")
    weak = classifier = None
    if request.weak is not None:
        weak = load(request.weak, averaged=request.averaged, device=str(device))
    if request.classifier is not None:
        classifier = NoisyClassifier.load(classifier_file(request.classifier), device)
    return trained.sample(
        end - first,
        sampler=request.sampler,
        steps=request.steps,
        guidance=request.guidance,
        seed=request.seed,
        first=request.first + first,
        labels=request.labels,
        captions=request.captions,
        images=None if request.images is None else read_pictures(request.images, shape, fit),
        edit=edit,
        weak=weak,
        classifier=classifier,
        batch_size=request.batch_size,
        progress=here.rank == 0,
    )


def comparison(given: Mapping[str, Tensor], pictures: "Pictures") -> Image.Image:
    """The pictures that were given, uint8 (1, C, H, W), and those drawn; a second one stands last.

    Between two all drawn pictures are shown, else the first ``SHOWN``.
    """
    last = {name: picture for name, picture in given.items() if name == "second"}
    before = {name: picture for name, picture in given.items() if name not in last}
    drawn = pictures.pixels if last else pictures.pixels[:SHOWN]
    words = ["drawn"] * len(drawn) if pictures.captions is None else pictures.captions[: len(drawn)]
    cells = torch.cat([*before.values(), drawn, *last.values()])
    columns = min(len(cells), SHOWN + len(given))
    return grid(cells, columns, captions=[*before, *words, *last])


def _folder(checkpoint: Path, name: str, about: dict[str, Any]) -> Path:
    """A folder of its own for each request."""
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:8]
    return drawn_folder(checkpoint) / f"{name}_{digest}"
