"""unnoise-evaluate: distances between drawn and real pictures, of one setting or a grid of them."""

import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from tqdm import tqdm

from unnoise.cli.measuring import digest, evaluation_folder, read_once, run_data, told, write_csv
from unnoise.cli.quality_request import GIVEN
from unnoise.config.nodes import instantiate
from unnoise.config.problems import ConfigError
from unnoise.data.source import ImageSource, Split
from unnoise.distributed.devices import named_device
from unnoise.distributed.group import join
from unnoise.evaluation.evaluator import Scorer, given_pictures, mixed
from unnoise.evaluation.extractors.find import find_extractor
from unnoise.evaluation.frontier import plot
from unnoise.evaluation.gallery import Gallery, Setting, draw
from unnoise.evaluation.grid import named_settings, step_of
from unnoise.evaluation.reference import reference
from unnoise.evaluation.results import Score, flat, save, table
from unnoise.models.trained import TrainedModel
from unnoise.runs.checkpoints import find_checkpoint, find_checkpoints


def evaluate(config: dict[str, Any]) -> None:
    """Draw what is not drawn yet, measure, print, write, and say where."""
    started, here = time.monotonic(), join()
    rank, ranks = here.rank, here.world_size
    device = named_device(config["device"])
    fixed = {k: v for k, v in config.items() if k not in ("device", "batch_size", "data_root")}
    scores: list[Score] = []
    try:
        settings = _settings(config, device)
        folder = evaluation_folder(settings[0][1].checkpoint) if settings else GIVEN
        drawn = [setting.values for _, setting in settings]
        whole = folder / f"quality_{digest([fixed, drawn])[:8]}.json"
        data = _data(config)
        if rank == 0:
            data.prepare()
            scorer = _scorer(config, data, device)
        _draw(config, settings, folder, rank, ranks)
        if rank > 0:
            return
        for score in _scores(config, scorer, data, settings, folder):
            scores.append(score)
            save(whole, scores, measure="quality", unnoise=version("unnoise"), request=fixed)
    except (FileNotFoundError, ValueError) as error:  # what only the files could tell
        raise ConfigError(str(error)) from error
    print(table(scores))
    files = [write_csv(whole.with_suffix(".csv"), [flat(score) for score in scores]), whole]
    if len(settings) > 1:
        files.append(plot(whole.with_suffix(".png"), scores, next(iter(scores[0].metrics))))
    print(f"\nquality in {time.monotonic() - started:.0f} s\n{told(files)}")
    if settings:
        print(f"  on one page: unnoise-report {config['run']}")


def _data(config: dict[str, Any]) -> ImageSource:
    """What pictures are held against."""
    if config["data"] is not None:
        source: ImageSource = instantiate(config["data"])
        return source
    newest = _read(config, find_checkpoint(Path(config["run"])), config["averaged"][0])
    return run_data(newest.config, None)


def _read(config: dict[str, Any], checkpoint: Path, averaged: bool) -> TrainedModel:
    """The model of a checkpoint, which takes what it is asked for from where the data are now."""
    trained = read_once(checkpoint, averaged, config["device"])
    if config["data_root"] is not None:
        trained.config["data"]["root"] = config["data_root"]
    return trained


def _settings(config: dict[str, Any], device: torch.device) -> list[tuple[str, Setting]]:
    """The grid's settings by name; none for pictures from elsewhere."""
    from unnoise.distributed.devices import lightning_precision

    if config["run"] is None:
        return []
    fast = lightning_precision(config["precision"], device.type) == "bf16-mixed"
    chosen = find_checkpoints(Path(config["run"]), config["checkpoints"])
    newest = _read(config, find_checkpoint(Path(config["run"])), config["averaged"][0])
    precision: Literal["fp32", "bf16"] = "bf16" if fast else "fp32"
    return list(named_settings(config, newest.config, chosen, precision, _asked(newest)))


def _asked(trained: TrainedModel) -> str | None:
    """The fingerprint of the pictures that a model is asked by, where it is by any."""
    model = trained.model
    first = torch.zeros(1, dtype=torch.int64, device=model.device)
    if model.conditioner is None or model.conditioner.examples(first) is not None:
        return None
    return str(trained.validation.fingerprint)


def _scorer(config: dict[str, Any], data: ImageSource, device: torch.device) -> Scorer:
    extractor = find_extractor(
        config["extractor"], data, device, config["weights"], config["resize"]
    )
    split = config["reference"]
    real = reference(data.images(split), split, config["reference_count"], extractor, device)
    return Scorer(extractor, real, device, instantiate(config["metrics"]))


def _draw(
    config: dict[str, Any],
    settings: list[tuple[str, Setting]],
    folder: Path,
    rank: int,
    ranks: int,
) -> None:
    """Every setting's pictures, shared among the processes; all are there when this returns."""
    n, at_once = config["n"], config["batch_size"]
    for number, (name, setting) in enumerate(settings, 1):
        gallery = Gallery(folder / "drawn", setting)
        missing = sum(map(len, gallery.missing(n, at_once, rank, ranks)))
        if missing:
            place = f"setting {number} of {len(settings)}"
            print(f"drawing {missing} pictures by {name} ({place})", file=sys.stderr, flush=True)
            trained = _read(config, setting.checkpoint, setting.averaged)
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
    """Of each setting or of what is given, then of the controls, which are as many pictures."""
    n = config["n"]
    for name, setting in tqdm(settings, "measuring", leave=False, disable=not sys.stderr.isatty()):
        gallery = Gallery(folder / "drawn", setting)
        seconds, evaluations = gallery.cost
        node = setting.sampler
        pictures = {
            "kind": "drawn",
            "run": config["run"],
            **{key: v for key, v in setting.values.items() if key not in ("sampler", "rounding")},
            "step": step_of(setting.checkpoint),
            "sampler": name.split()[0],
            "recipe": node,
            "steps": node["steps"],
            "evaluations": evaluations,
            "seconds": seconds,
            "guidance": node["guidance"]["scale"],
        }
        yield scorer.score(name, pictures, gallery.read(n), gallery.folder)
    if config["images"] is not None:
        path = Path(config["images"])
        pixels = given_pictures(path)
        n, (height, width), (_, H, W) = len(pixels), pixels.shape[2:], data.shape
        if (height, width) != (H, W):
            raise ValueError(
                f"{path}: its pictures are {width} × {height}, the real ones {W} × {H}; "
                "distances are between pictures of one size"
            )
        yield scorer.score(path.stem, {"kind": "given", "images": str(path)}, mixed(pixels))
    if config["controls"]:
        other: Split = "validation" if config["reference"] == "train" else "train"
        yield from scorer.controls(data.images(other), n)
