"""measure=likelihood: bits/dim of real pictures, by any model that has a likelihood."""

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor
from tqdm import tqdm

from unnoise.config.faults import Run
from unnoise.config.numbers import Number
from unnoise.config.problems import Problem
from unnoise.data.stream import split_loader
from unnoise.diffusion.likelihood import ode_bits_per_dim
from unnoise.diffusion.noise import Noise
from unnoise.evaluation.measure import Keys, Measure, Result
from unnoise.evaluation.results import aligned
from unnoise.models.averages import Averaged
from unnoise.models.base import a
from unnoise.models.diffusion import DiffusionModel, diffusion_model
from unnoise.models.latent import LikelihoodModel

TERMS = ("prior L_T", "steps L_1 … L_T−1", "decoder L_0", "bound, in all", "ODE")


@dataclass(frozen=True)
class Term:
    """The mean of a term over ``n`` pictures in bits/dim, and the standard error of that mean."""

    name: str
    mean: float
    error: float
    n: int

    @property
    def values(self) -> dict[str, str | float | int]:
        """The row as plain values, for CSV and JSON."""
        return {"term": self.name, "n": self.n, "bits/dim": self.mean, "error": self.error}


@dataclass(frozen=True, kw_only=True)
class Likelihood(Measure):
    """The keys of ``conf/measure/likelihood.yaml``."""

    run: Run
    seed: Number
    averaged: Averaged
    n: Annotated[int, Field(ge=2)]
    steps: Annotated[int, Field(ge=2)] | None  # the bound has several terms

    name, shared = "likelihood", False

    def problems(self, keys: Keys) -> Iterator[Problem]:
        """What is wrong between the keys and the run."""
        wrong = list(self.model_problems(self.averaged))
        yield from wrong
        if not any(problem.key == "run" for problem in wrong):
            model = self.trained(self.averaged).model
            if isinstance(model, LikelihoodModel):
                if self.steps is not None:
                    yield Problem("steps", f"{a(model)} has no noise levels: leave it out")
                return
            if not isinstance(model, DiffusionModel):
                message = f"measure=likelihood takes a model with a likelihood, not {a(model)}"
                yield Problem("run", message)
                return
            try:
                diffusion_model(model, "measure=likelihood", of_pixels=True)
            except ValueError as error:
                yield Problem("run", str(error))
                return
            try:
                model.schedule.grid(self.steps)
            except ValueError as error:
                yield Problem("steps", str(error))

    def measure(self, keys: Keys) -> Result:
        """The mean of each term, and of what they are in all."""
        trained = self.trained(self.averaged)
        model, found = trained.model, []
        batches = split_loader(trained.validation, batch_size=self.batch_size, limit=self.n)
        for batch in tqdm(batches, disable=not sys.stderr.isatty(), leave=False):
            here = {k: v.to(model.device) if torch.is_tensor(v) else v for k, v in batch.items()}
            noise = Noise(self.seed, here["position"])
            if isinstance(model, DiffusionModel):
                found.append(of_diffusion(model, here, noise, self.steps))
            else:
                with torch.no_grad():
                    found.append(model.bits(here, noise))
                found[-1]["in all"] = torch.stack([*found[-1].values()]).sum(0)
        rows = terms({name: torch.cat([each[name].cpu() for each in found]) for name in found[0]})
        about = {key: keys[key] for key in ("n", "steps", "seed", "averaged")}
        if isinstance(model, DiffusionModel):
            levels = len(model.schedule.grid(self.steps)) - 1
            about |= {"levels": levels, "variance": model.variance}
        return Result(table(rows), self.write_rows(about, [row.values for row in rows]))


def of_diffusion(
    model: DiffusionModel, batch: Mapping[str, Any], noise: Noise, steps: int | None
) -> dict[str, Tensor]:
    """The bound by term over all levels, or ``steps`` of them, and the density by the ODE."""
    bound = model.variational_bound(batch, noise, steps)
    with torch.no_grad():
        condition = model.condition(batch, torch.ones_like(noise.ids, dtype=torch.bool))
    x0 = model.codec.encode(batch["image"])
    ode = ode_bits_per_dim(model.under(condition), model.schedule, x0, noise)
    parts = (bound.prior, bound.steps.sum(1), bound.decoder, bound.total, ode)
    return dict(zip(TERMS, parts, strict=True))


def terms(bits: Mapping[str, Tensor]) -> list[Term]:
    """The mean of each term (N,) with its standard error s/√N; N ≥ 2."""
    return [
        Term(name, float(x.mean()), float(x.std()) / math.sqrt(len(x)), len(x))
        for name, x in bits.items()
    ]


def table(rows: Sequence[Term]) -> str:
    """The rows for a terminal."""
    cells = [(row.name, f"{row.mean:.4f} ± {row.error:.4f}", str(row.n)) for row in rows]
    return "\n".join(aligned([("term", "bits/dim ± error", "n"), *cells]))
