"""unnoise-evaluate: distances between drawn and real pictures, of one setting or a grid of them."""

import dataclasses
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from tqdm import tqdm

from unnoise.api import find_checkpoint
from unnoise.cli.checks import folder_problems, right_keys
from unnoise.cli.config import ConfigError, Problem, did_you_mean, instantiate
from unnoise.cli.devices import named_device, processes
from unnoise.cli.grid import checkpoints, named_settings
from unnoise.cli.measuring import (
    Count,
    Number,
    Scale,
    data_problems,
    digest,
    evaluation_folder,
    place_problems,
    read_once,
    run_data,
    told,
    write_csv,
)
from unnoise.cli.preflight import construction_problems, problems
from unnoise.data.loading import ImageSource, Split
from unnoise.diffusion.samplers import Sampler
from unnoise.drawing import Gallery, Setting, draw
from unnoise.evaluation.frontier import plot
from unnoise.evaluation.quality import KINDS
from unnoise.evaluation.results import Score, flat, save, table
from unnoise.extraction import find_extractor, reference
from unnoise.scoring import Scorer, given_pictures

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
    n: Annotated[int, Field(ge=2)]
    metrics: list[str] | None
    extractor: str
    weights: str | None
    resize: Literal["original", "antialias"]
    reference: Literal["train", "validation"]
    reference_count: Annotated[int, Field(ge=2)]
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
        if name not in KINDS:
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
        chosen = checkpoints(run, config["checkpoints"])
    except (ValueError, ConfigError) as error:
        yield Problem("run", str(error))
        return
    if config["data"] is None:
        yield from data_problems(newest.config, config["data_root"])
    for name, setting in named_settings(config, newest.config, chosen, "fp32"):
        sampler = instantiate(setting.sampler)
        try:
            newest.model.schedule.grid(sampler.steps, sampler.spacing)
            newest.check_guidance(sampler.guidance.scale)
        except ValueError as error:
            yield Problem("samplers", f"{name}: {error}")


def evaluate(config: dict[str, Any]) -> None:
    """Draw what is not drawn yet, measure, print, write, and say where."""
    started, (rank, ranks) = time.monotonic(), processes()
    device = named_device(config["device"])
    fixed = {k: v for k, v in config.items() if k not in ("device", "batch_size", "data_root")}
    settings = _settings(config, device)
    folder = evaluation_folder(settings[0][1].checkpoint) if settings else GIVEN
    whole = folder / f"quality_{digest(fixed)[:8]}.json"
    scores: list[Score] = []
    try:
        data = _data(config)
        if rank == 0:
            data.prepare()
            scorer = _scorer(config, data, device)
        _draw(config, settings, folder, device, rank, ranks)
        if rank > 0:
            return
        for score in _scores(config, scorer, data, settings, folder):
            scores.append(score)
            save(whole, scores, measure="quality", request=fixed)
    except (FileNotFoundError, ValueError) as error:  # what only the files could tell
        raise ConfigError(str(error)) from error
    print(table(scores))
    files = [write_csv(whole.with_suffix(".csv"), [flat(score) for score in scores]), whole]
    if len(settings) > 1:
        files.append(plot(whole.with_suffix(".png"), scores, next(iter(scores[0].metrics))))
    print(f"\nquality in {time.monotonic() - started:.0f} s\n{told(files)}")


def _data(config: dict[str, Any]) -> ImageSource:
    """What pictures are held against."""
    if config["data"] is not None:
        source: ImageSource = instantiate(config["data"])
        return source
    return run_data(_trained(config), config["data_root"])


def _trained(config: dict[str, Any]) -> dict[str, Any]:
    """The run's own config."""
    checkpoint = find_checkpoint(Path(config["run"]))
    return read_once(checkpoint, config["averaged"][0], config["device"]).config


def _settings(config: dict[str, Any], device: torch.device) -> list[tuple[str, Setting]]:
    """The grid's settings by name; none for pictures from elsewhere."""
    from unnoise.training.launch import lightning_precision

    if config["run"] is None:
        return []
    fast = lightning_precision(config["precision"], device.type) == "bf16-mixed"
    chosen = checkpoints(Path(config["run"]), config["checkpoints"])
    return list(named_settings(config, _trained(config), chosen, "bf16" if fast else "fp32"))


def _scorer(config: dict[str, Any], data: ImageSource, device: torch.device) -> Scorer:
    extractor = find_extractor(
        config["extractor"], data, device, config["weights"], config["resize"]
    )
    split = config["reference"]
    real = reference(data.images(split), split, config["reference_count"], extractor, device)
    return Scorer(extractor, real, device, config["metrics"])


def _draw(
    config: dict[str, Any],
    settings: list[tuple[str, Setting]],
    folder: Path,
    device: torch.device,
    rank: int,
    ranks: int,
) -> None:
    """Every setting's pictures, shared among the processes; all are there when this returns."""
    n, at_once = config["n"], config["batch_size"]
    for name, setting in settings:
        gallery = Gallery(folder / "drawn", setting)
        missing = sum(map(len, gallery.missing(n, at_once)[rank::ranks]))
        if missing:
            trained = read_once(setting.checkpoint, setting.averaged, str(device))
            with tqdm(total=missing, desc=name, unit="picture", leave=False, disable=None) as bar:
                draw(gallery, trained, n, batch_size=at_once, rank=rank, ranks=ranks,
                     watch=bar.update)  # fmt: skip
        if ranks > 1:
            torch.distributed.barrier()


def _scores(
    config: dict[str, Any],
    scorer: Scorer,
    data: ImageSource,
    settings: list[tuple[str, Setting]],
    folder: Path,
) -> Iterator[Score]:
    """One after the other, each said to the terminal as soon as it is known."""
    for name, setting in tqdm(settings, "measuring", leave=False, disable=not sys.stderr.isatty()):
        gallery = Gallery(folder / "drawn", setting)
        seconds, evaluations = gallery.cost
        node = setting.sampler
        pictures = {
            "kind": "drawn",
            "run": config["run"],
            **{key: v for key, v in setting.values.items() if key not in ("sampler", "rounding")},
            "step": int(setting.checkpoint.stem.partition("_")[2] or 0),
            "sampler": name.split()[0],
            "recipe": node,
            "steps": node["steps"],
            "evaluations": evaluations,
            "seconds": seconds,
            "guidance": node["guidance"]["scale"],
        }
        yield scorer.score(name, pictures, gallery.read(config["n"]), gallery.folder)
    if config["images"] is not None:
        path = Path(config["images"])
        pixels = given_pictures(path)
        yield scorer.score(path.stem, {"kind": "given", "images": str(path)}, pixels)
    if config["controls"]:
        other: Split = "validation" if config["reference"] == "train" else "train"
        yield from scorer.controls(data.images(other), config["n"])
