"""unnoise-evaluate measure=likelihood: bits/dim of real pictures."""

import dataclasses
import sys
import time
from collections.abc import Iterator
from typing import Annotated, Any

import torch
from pydantic import Field
from tqdm import tqdm

from unnoise.cli.checks import right_keys
from unnoise.cli.measuring import RunRequest, data_problems, place_problems, told, write_rows
from unnoise.config.problems import ConfigError, Problem
from unnoise.config.schema import problems
from unnoise.data.stream import split_loader
from unnoise.diffusion.likelihood import ode_bits_per_dim
from unnoise.diffusion.noise import Noise
from unnoise.evaluation.likelihood import Estimate, estimates, table


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request(RunRequest):
    """What is to be measured: one field for each key of ``conf/measure/likelihood.yaml``."""

    n: Annotated[int, Field(ge=2)]
    steps: Annotated[int, Field(ge=2)] | None  # the bound has several terms


def check(config: dict[str, Any]) -> Iterator[list[Problem]]:
    """All that is wrong with a request, the run and its data included."""
    found = problems(config, Request)
    right = right_keys(config, found)
    whole = not found and right == set(config)
    found += place_problems(config, right)
    yield found
    if whole and not found:
        yield list(_rules(Request(**config)))


def _rules(request: Request) -> Iterator[Problem]:
    try:
        trained = request.trained()
    except (ValueError, ConfigError) as error:
        yield Problem("run", str(error))
        return
    yield from data_problems(trained.config, request.data_root)
    try:
        trained.model.schedule.grid(request.steps)
    except ValueError as error:
        yield Problem("steps", str(error))


def evaluate(config: dict[str, Any]) -> None:
    """Measure, print, write, and say where."""
    request, started = Request(**config), time.monotonic()
    trained, source = request.trained(), request.source()
    try:
        source.prepare()
    except (FileNotFoundError, ValueError) as error:  # what only the files could tell
        raise ConfigError(str(error)) from error
    levels = trained.model.schedule.grid(request.steps)
    rows = list(_measured(request))
    print(table(rows))
    about = {key: config[key] for key in ("n", "steps", "seed", "averaged")}
    about |= {"levels": len(levels) - 1, "variance": trained.model.variance}
    files = write_rows(trained.checkpoint, "likelihood", about, [row.values for row in rows])
    print(f"\nlikelihood in {time.monotonic() - started:.0f} s\n{told(files)}")


def _measured(request: Request) -> Iterator[Estimate]:
    """The bound by term over all levels, or ``steps`` of them, and the density by the ODE."""
    model, found = request.trained().model, []
    batches = split_loader(
        request.source().images("validation"), batch_size=request.batch_size, limit=request.n
    )
    for batch in tqdm(batches, disable=not sys.stderr.isatty(), leave=False):
        on_device = {k: v.to(model.device) if torch.is_tensor(v) else v for k, v in batch.items()}
        x0 = model.codec.encode(on_device["image"])
        noise = Noise(request.seed, on_device["position"])
        terms = model.variational_bound(on_device, noise, request.steps)
        with torch.no_grad():
            condition = model.condition(on_device, torch.ones_like(noise.ids, dtype=torch.bool))
        ode = ode_bits_per_dim(model.bound(condition), model.schedule, x0, noise)
        each = (terms.prior, terms.steps.sum(1), terms.decoder, terms.total, ode)
        found.append(torch.stack(each).cpu())
    names = ("prior L_T", "steps L_1 … L_T−1", "decoder L_0", "bound, in all", "ODE")
    yield from estimates(dict(zip(names, torch.cat(found, 1), strict=True)))
