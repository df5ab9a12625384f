"""unnoise-classifier: train a classifier of noisy pictures, and say how good it is."""

import dataclasses
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import nn
from tqdm import tqdm

from unnoise.cli.checks import device_problems, folder_problems, right_keys
from unnoise.cli.command import run as run_command
from unnoise.config.nodes import instantiate
from unnoise.config.problems import ConfigError, Problem
from unnoise.config.schema import built, construction_problems, problems
from unnoise.data.source import ImageSource
from unnoise.diffusion.schedules import NoiseSchedule
from unnoise.distributed.devices import named_device
from unnoise.evaluation.labels import Target, splits
from unnoise.models.classifier import FOLDER, NoisyClassifier, by_noise_level, train

Count = Annotated[int, Field(ge=1)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be trained: one field for each key of ``conf/classifier.yaml``."""

    data: ImageSource
    schedule: NoiseSchedule
    network: Callable[..., nn.Module]
    target: Target
    seed: Annotated[int, Field(ge=0)]
    steps: Count
    batch_size: Count
    lr: Annotated[float, Field(gt=0)]
    precision: Literal["auto", "fp32", "bf16"]
    device: str
    out: str | None
    name: str


def main() -> None:
    """The command's entry point."""
    run_command("classifier", check, fit)


def check(config: dict[str, Any]) -> Iterator[list[Problem]]:
    """All that is wrong with a request, before pictures are read."""
    found = problems(config, Request)
    right = right_keys(config, found)
    whole = not found and right == set(config)
    objects, more = built(config, sorted({"data", "schedule"} & right), device="cpu")
    found += more
    if "network" in right and isinstance(objects.get("data"), ImageSource):
        node = _network(config, objects["data"].shape, classes=1)
        found += construction_problems({"network": node}, ["network"])
    if "device" in right:
        found += device_problems(config["device"])
    if "out" in right:
        found += folder_problems("out", Path(config["out"] or FOLDER))
    if whole and not found:
        found += _data_problems(instantiate(config["data"]), config)
    yield found


def _network(config: dict[str, Any], shape: tuple[int, ...], classes: int) -> dict[str, Any]:
    """The network's node with nothing left open."""
    node = {key: value for key, value in config["network"].items() if key != "_partial_"}
    return {**node, "shape": [*shape], "classes": classes}


def _data_problems(data: ImageSource, config: dict[str, Any]) -> list[Problem]:
    try:
        size = data.check()
    except (FileNotFoundError, ValueError, ImportError) as error:
        return [Problem("data", str(error))]
    found = []
    if config["target"] == "label" and not data.class_names():
        found.append(Problem("data", "its pictures have no classes that could be told apart"))
    if config["target"] not in ("label", *getattr(data, "attributes", ())):
        found.append(Problem("target", f"these data have no {config['target']}: use label"))
    if size is not None and size < config["batch_size"]:
        reason = f"{config['batch_size']} is more than the data ({size} images)"
        found.append(Problem("batch_size", reason))
    return found


def fit(config: dict[str, Any]) -> None:
    """Train, measure, write, and say where."""
    from unnoise.distributed.devices import lightning_precision

    request = Request(**{key: instantiate(value) for key, value in config.items()})
    try:
        request.data.prepare()
        pictures = splits(request.data, request.target)
    except (FileNotFoundError, ValueError) as error:
        raise ConfigError(f"data: {error}") from error
    torch.manual_seed(request.seed)
    device = named_device(request.device)
    network = _network(config, request.data.shape, len(pictures.names))
    about = {
        "network": network,
        "data": {key: value for key, value in config["data"].items() if key != "root"},
        "fingerprint": pictures.training.fingerprint,
        **{key: config[key] for key in ("name", "schedule", "seed", "steps", "batch_size", "lr")},
    }
    classifier = NoisyClassifier(instantiate(network), pictures.names, request.target, about)
    started = time.monotonic()
    with tqdm(total=request.steps, disable=not sys.stderr.isatty(), leave=False) as bar:

        def watch(loss: float) -> None:
            bar.update()

        train(
            classifier.to(device),
            pictures.training,
            request.schedule,
            steps=request.steps,
            batch_size=request.batch_size,
            lr=request.lr,
            seed=request.seed,
            bf16=lightning_precision(request.precision, device.type) == "bf16-mixed",
            watch=watch,
        )
    seconds = time.monotonic() - started
    about["accuracy"] = measured = by_noise_level(classifier, pictures.real)
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:8]
    folder = Path(request.out or FOLDER / f"{request.name}_{request.target}_{digest}")
    classifier.save(folder / "classifier.pt")
    (folder / "about.json").write_text(json.dumps(about, indent=2) + "\n")
    print(f"{request.target} of {len(pictures.names)}, {request.steps} steps in {seconds:.0f} s")
    print(_table(measured))
    print(f"  classifier  {os.path.relpath(folder / 'classifier.pt')}")


def _table(rows: list[dict[str, float | str | None]]) -> str:
    real = [key for key in rows[0] if key not in ("log_snr", "sigma/alpha")]
    lines = ["  accuracy at sigma/alpha" + "".join(f"{name:>12}" for name in real)]
    for row in rows:
        shares = "".join(f"{row[name]:>12.1%}" for name in real)
        lines.append(f"  {row['sigma/alpha']:>23.2f}{shares}")
    return "\n".join(lines)
