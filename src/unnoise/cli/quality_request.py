"""What unnoise-evaluate measure=quality can be asked, and what of it is wrong."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from unnoise.cli.checks import folder_problems, right_keys
from unnoise.cli.measuring import Count, Number, Scale, data_problems, place_problems, read_once
from unnoise.config.nodes import MODEL, instantiate
from unnoise.config.problems import ConfigError, Problem, did_you_mean
from unnoise.config.schema import construction_problems, problems
from unnoise.data.source import ImageSource
from unnoise.diffusion.samplers import Sampler
from unnoise.evaluation.grid import named_settings
from unnoise.evaluation.metrics import Compare
from unnoise.evaluation.neighbours import K_DENSITY
from unnoise.evaluation.quality import KINDS
from unnoise.models.trained import TrainedModel
from unnoise.runs.checkpoints import find_checkpoint, find_checkpoints

GIVEN = Path("outputs") / "evaluation"
"""Where the scores of pictures from elsewhere go."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be measured: one field for each key of ``conf/measure/quality.yaml``."""

    measure: str
    run: str | None
    images: str | None
    data: ImageSource | None
    data_root: str | None
    n: Annotated[int, Field(gt=K_DENSITY)]
    metrics: list[str | Compare] | None
    extractor: str
    weights: str | None
    resize: Literal["original", "antialias"]
    reference: Literal["train", "validation"]
    reference_count: Annotated[int, Field(gt=K_DENSITY)]
    controls: bool
    checkpoints: Literal["newest", "all"] | list[Number]
    averaged: list[bool]
    sampler: Sampler | None
    samplers: dict[str, Sampler]
    baselines: dict[str, Sampler]
    steps: list[Count] | None
    evaluations: list[Count] | None
    guidance: list[Scale] | None
    seeds: list[Number]
    precision: Literal["auto", "fp32", "bf16"]
    batch_size: Count
    device: str


def check(config: dict[str, Any]) -> Iterator[list[Problem]]:
    """All that is wrong with a request, and with the run and its data."""
    found = problems(config, Request)
    right = right_keys(config, found)
    whole = not found and right == set(config)
    built = {"sampler", "samplers", "baselines", "data"} & right
    found += construction_problems(config, sorted(built), device="cpu")
    found += place_problems(config, right)
    if {"run", "images", "data"} <= right:
        found += _source_problems(config)
    if whole:
        found += _grid_problems(config)
    yield found
    if whole and not found and config["run"] is not None:
        yield list(_run_problems(config))


def _source_problems(config: dict[str, Any]) -> Iterator[Problem]:
    if (config["run"] is None) == (config["images"] is None):
        yield Problem("run", "give either a run, as run=…, or pictures, as images=… data=…")
    elif config["images"] is not None:
        if not Path(config["images"]).exists():
            yield Problem("images", f"there is no {config['images']}")
        if config["data"] is None:
            yield Problem("data", "missing: what pictures are held against, as data=fashion_mnist")
        yield from folder_problems("images", GIVEN)


def _grid_problems(config: dict[str, Any]) -> Iterator[Problem]:
    if config["steps"] is not None and config["evaluations"] is not None:
        yield Problem("evaluations", "steps are given too: leave one of them out")
    if config["sampler"] is not None and config["samplers"]:
        yield Problem("sampler", "the grid has its samplers: leave this out, or use grid=single")
    for name in config["metrics"] or ():
        if isinstance(name, str) and name not in KINDS:
            near = did_you_mean(name, KINDS)
            yield Problem("metrics", f"there is no {name}{near} ({', '.join(KINDS)})")
    for key in ("averaged", "metrics", "seeds", "checkpoints", "steps", "evaluations", "guidance"):
        if config[key] == []:
            yield Problem(key, "is empty: give at least one")


def _run_problems(config: dict[str, Any]) -> Iterator[Problem]:
    """What must hold between the request and the run."""
    run = Path(config["run"])
    try:
        newest = read_once(find_checkpoint(run), config["averaged"][0], config["device"])
        chosen = find_checkpoints(run, config["checkpoints"])
    except (ValueError, ConfigError) as error:
        yield Problem("run", str(error))
        return
    if config["data"] is None:
        yield from data_problems(newest.config, config["data_root"])
    for name, setting in named_settings(config, newest.config, chosen, "fp32"):
        sampler = instantiate(setting.sampler, MODEL)
        try:
            newest.model.schedule.grid(sampler.steps, sampler.spacing)
            _check(newest, setting.sampler)
        except ValueError as error:
            yield Problem("samplers", f"{name}: {error}")


def _check(trained: TrainedModel, node: dict[str, Any]) -> None:
    """Whether the run learned what a sampler needs.

    Raises:
        ValueError: it did not.
    """
    scale = node["guidance"]["scale"]
    if scale != 1 and trained.model.conditioner is None:
        raise ValueError(
            f"guidance {scale:g} needs something to guide by: the run has no condition"
        )
    if node["stepper"].get("variance") == "learned" and trained.model.variance != "learned":
        raise ValueError("the run did not learn a variance")
    trained.check_guidance(scale)
