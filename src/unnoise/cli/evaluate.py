"""unnoise-evaluate: measure how well a run does."""

import csv
import dataclasses
import functools
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from tqdm import tqdm

from unnoise.api import TrainedModel, find_checkpoint, load
from unnoise.cli.checks import (
    classifier_file,
    folder_problems,
    home,
    right_keys,
    run_problems,
)
from unnoise.cli.command import run as run_command
from unnoise.cli.config import ConfigError, Problem, instantiate
from unnoise.cli.devices import device_problems, named_device
from unnoise.cli.judging import (
    drawn_rows,
    find_judges,
    load_judge,
    questions,
    real_rows,
    targets,
)
from unnoise.cli.preflight import construction_problems, problems
from unnoise.data.loading import ImageSource, split_loader
from unnoise.diffusion.likelihood import bound, ode_bits_per_dim
from unnoise.diffusion.random import Noise
from unnoise.diffusion.samplers import Sampler
from unnoise.evaluation import adherence, likelihood
from unnoise.pictures import to_signal

Count = Annotated[int, Field(ge=1)]
Scale = Annotated[float, Field(ge=0)]
UNUSED = ("sampler", "judge", "classifier")  # by the likelihood


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be measured: one field for each key of ``conf/evaluate.yaml``."""

    run: str
    measure: Literal["adherence", "likelihood"]
    n: Annotated[int, Field(ge=2)]
    guidance: list[Scale]
    judge: str | list[str] | None
    classifier: str | None
    sampler: Sampler | None
    steps: Count | None
    seed: Annotated[int, Field(ge=0)]
    batch_size: Count
    averaged: bool
    data_root: str | None
    device: str

    @property
    def judges(self) -> list[str] | None:
        """What is given, as a list."""
        return [self.judge] if isinstance(self.judge, str) else self.judge

    def trained(self) -> TrainedModel:
        """The run's newest checkpoint, on the device."""
        return _trained(find_checkpoint(Path(self.run)), self.averaged, self.device)


def main() -> None:
    """The command's entry point."""
    run_command("evaluate", check, evaluate)


def check(config: dict[str, Any]) -> Iterator[list[Problem]]:
    """All that is wrong with a request, the run, its data and the judges included."""
    found = problems(config, Request)
    right = right_keys(config, found)
    whole = not found and right == set(config)
    found += construction_problems(config, sorted({"sampler"} & right), device="cpu")
    if "device" in right:
        found += device_problems(config["device"])
    if "run" in right:
        missing = run_problems("run", config["run"])
        found += missing or folder_problems("run", _folder(find_checkpoint(Path(config["run"]))))
    if {"measure", *UNUSED, "steps"} <= right and config["measure"] == "likelihood":
        found += _likelihood_problems(config)
    yield found
    if whole and not found:
        yield list(_rules(Request(**{key: instantiate(value) for key, value in config.items()})))


def _likelihood_problems(config: dict[str, Any]) -> Iterator[Problem]:
    for key in UNUSED:
        if config[key] is not None:
            yield Problem(key, "is not used by measure=likelihood: leave it out")
    if config["steps"] == 1:
        yield Problem("steps", "must be >= 2 with measure=likelihood: the bound has several terms")


@functools.lru_cache(maxsize=1)
def _trained(checkpoint: Path, averaged: bool, device: str) -> TrainedModel:
    """Read once, for the check and for what follows."""
    return load(checkpoint, averaged=averaged, device=device)


def _rules(request: Request) -> Iterator[Problem]:
    """What must hold between the request and the run."""
    try:
        trained = request.trained()
    except (ValueError, ConfigError) as error:
        yield Problem("run", str(error))
        return
    if request.data_root is not None and "root" not in trained.config["data"]:
        yield Problem("data_root", "the run's data are not read from a folder: leave it out")
        return
    try:
        data = _data(trained, request)
        data.check()
    except (FileNotFoundError, ValueError, ImportError, ConfigError) as error:
        yield Problem("data_root", str(error))
        return
    sampler = request.sampler or trained.sampler
    try:
        trained.model.schedule.grid(request.steps or sampler.steps, sampler.spacing)
    except ValueError as error:
        yield Problem("steps", str(error))
    if request.measure == "likelihood":
        return
    if not request.guidance:
        yield Problem("guidance", "is empty: give scales, as guidance=[1,2]")
    try:
        for scale in request.guidance if request.classifier is None else ():
            trained.check_guidance(scale)
    except ValueError as error:
        yield Problem("guidance", str(error))
    try:
        wanted = targets(trained, guided=request.classifier is not None)
    except ValueError as error:
        yield Problem("run", str(error))
        return
    try:
        if "label" not in wanted:
            questions(data, wanted, request.n)
    except ValueError as error:
        yield Problem("n" if str(error).startswith("n ") else "run", str(error))
    judges, found = find_judges(request.judges, wanted, trained.config["data"])
    yield from found
    if request.classifier is not None:
        _, found = find_judges([request.classifier], wanted, trained.config["data"])
        yield from (dataclasses.replace(problem, key="classifier") for problem in found)
        if classifier_file(request.classifier) in judges.values():
            reason = "also guides, and so judges itself: train another with another seed"
            yield Problem("judge", reason, "warning")


def _data(trained: TrainedModel, request: Request) -> ImageSource:
    node = dict(trained.config["data"])
    if request.data_root is not None:
        node["root"] = request.data_root
    source: ImageSource = instantiate(node)
    return source


def evaluate(config: dict[str, Any]) -> None:
    """Measure, print, write, and say where."""
    request = Request(**{key: instantiate(value) for key, value in config.items()})
    started = time.monotonic()
    try:
        trained = request.trained()
        data = _data(trained, request)
        data.prepare()
        about = {
            "checkpoint": str(trained.checkpoint),
            "sampler": config["sampler"] or trained.config["sampler"],
            **{key: config[key] for key in ("measure", "n", "steps", "seed", "averaged")},
        }
        if request.measure == "adherence":
            rows, text, extra = _adherence(request, trained, data)
        else:
            rows, text, extra = _likelihood(request, trained, data)
    except (FileNotFoundError, ValueError) as error:  # what only the files could tell
        raise ConfigError(str(error)) from error
    print(text)
    files = _write(trained.checkpoint, about | extra, rows)
    print(f"\n{request.measure} in {time.monotonic() - started:.0f} s")
    for path in files:
        print(f"  {os.path.relpath(path)}")


Result = tuple[list[dict[str, Any]], str, dict[str, Any]]
"""Rows, their table, and what else they depend on."""


def _adherence(request: Request, trained: TrainedModel, data: ImageSource) -> Result:
    """Real pictures first, then drawn ones at each guidance scale."""
    wanted = targets(trained, guided=request.classifier is not None)
    device = named_device(request.device)
    files, _ = find_judges(request.judges, wanted, trained.config["data"])
    judges = {target: load_judge(path).to(device) for target, path in files.items()}
    guide = None if request.classifier is None else classifier_file(request.classifier)
    asked_for = questions(data, wanted, request.n)
    rows = [row for question in asked_for for row in real_rows(question, judges)]
    for question in asked_for:
        for scale in request.guidance:
            rows += drawn_rows(
                trained,
                question,
                judges,
                sampler=request.sampler or trained.sampler,
                steps=request.steps,
                scale=scale,
                n=request.n,
                seed=request.seed,
                batch_size=request.batch_size,
                classifier=None if guide is None else load_judge(guide).to(device),
                progress=sys.stderr.isatty(),
            )
    about = {
        "guidance": request.guidance,
        "classifier": None if guide is None else _digest(guide),
        "judges": {target: _digest(path) for target, path in files.items()},
    }
    return [row.values for row in rows], adherence.table(rows), about


def _likelihood(request: Request, trained: TrainedModel, data: ImageSource) -> Result:
    """The bound by term over all levels, or ``steps`` of them, and the density by the ODE."""
    model, found = trained.model, []
    levels = model.schedule.grid(request.steps)
    kind: Literal["learned", "beta"] = "learned" if model.denoiser.learned_variance else "beta"
    batches = split_loader(
        data.images("validation"), batch_size=request.batch_size, limit=request.n
    )
    for batch in tqdm(batches, disable=not sys.stderr.isatty(), leave=False):
        told = {k: v.to(model.device) if torch.is_tensor(v) else v for k, v in batch.items()}
        x0, noise = to_signal(told["image"]), Noise(request.seed, told["position"])
        with torch.no_grad():
            condition = None
            if model.conditioner is not None:
                condition = model.conditioner(told, torch.ones_like(noise.ids, dtype=torch.bool))
            terms = bound(model.bound(condition), levels, x0, noise, kind)
        ode = ode_bits_per_dim(model.bound(condition), model.schedule, x0, noise)
        each = (terms.prior, terms.steps.sum(1), terms.decoder, terms.total, ode)
        found.append(torch.stack(each).cpu())
    names = ("prior L_T", "steps L_1 … L_T−1", "decoder L_0", "bound, in all", "ODE")
    rows = likelihood.estimates(dict(zip(names, torch.cat(found, 1), strict=True)))
    about = {"levels": len(levels) - 1, "variance": kind}
    return [row.values for row in rows], likelihood.table(rows), about


def _digest(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _folder(checkpoint: Path) -> Path:
    return home(checkpoint) / "evaluation"


def _write(checkpoint: Path, about: dict[str, Any], rows: list[dict[str, Any]]) -> list[Path]:
    """The rows as CSV and JSON, under a name of their own for each request, in the run."""
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:8]
    name = f"{about['measure']}_{digest}"
    table, whole = (_folder(checkpoint) / f"{name}.{kind}" for kind in ("csv", "json"))
    table.parent.mkdir(parents=True, exist_ok=True)
    whole.write_text(json.dumps({**about, "rows": rows}, indent=2) + "\n")
    flat = {key: json.dumps(v) if isinstance(v, dict | list) else v for key, v in about.items()}
    del flat["n"], flat["measure"]
    flat.pop("guidance", None)  # of which each row has its own
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], *flat])
        writer.writeheader()
        writer.writerows({**row, **flat} for row in rows)
    return [table, whole]
