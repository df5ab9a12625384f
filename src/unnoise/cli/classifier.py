"""unnoise-classifier: train a classifier of noisy pictures, and say how good it is."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import nn
from tqdm import tqdm

from unnoise.cli.request import Data, Request, data_fault, run_request
from unnoise.config.faults import Device, Folder, device_fault
from unnoise.config.nodes import instantiate
from unnoise.config.numbers import Count, Number
from unnoise.config.problems import Problem
from unnoise.diffusion.schedules import NoiseSchedule
from unnoise.distributed.devices import lightning_precision, named_device, slow_bf16
from unnoise.evaluation.classifiers import Target, splits
from unnoise.files import folder_fault, write_text
from unnoise.models.classifier import FOLDER, NoisyClassifier, by_noise_level, train
from unnoise.runs.identity import digest
from unnoise.runs.layout import shown


@dataclass(frozen=True, kw_only=True)
class ClassifierTraining(Request):
    """What is to be trained: one field for each key of ``conf/classifier.yaml``."""

    data: Data
    schedule: NoiseSchedule
    network: Callable[..., nn.Module]
    target: Target
    seed: Number
    steps: Count
    batch_size: Count
    lr: Annotated[float, Field(gt=0)]
    precision: Literal["auto", "fp32", "bf16"]
    device: Device
    out: Folder
    name: str

    def problems(self) -> Iterator[Problem]:
        """The network, and whether the data have the target and pictures for a batch."""
        try:
            with torch.device("meta"):
                self.network(shape=self.data.shape, classes=1)
        except ValueError as error:
            yield Problem("network", str(error))
        if self.out is None and (fault := folder_fault(FOLDER / f"{self.name}_{self.target}_")):
            yield Problem("out", fault)
        on = "cpu" if device_fault(self.device) else named_device(self.device).type
        if slow := slow_bf16(self.precision, on):
            yield Problem("precision", slow, "warning")
        if data_fault(self.data):
            return
        size = self.data.check()
        if self.target == "label" and not self.data.class_names():
            yield Problem("data", "its pictures have no classes")
        if self.target not in ("label", *getattr(self.data, "attributes", ())):
            yield Problem("target", f"these data have no {self.target}: use label")
        if size is not None and size < self.batch_size:
            reason = f"{self.batch_size} is more than the data ({size} images)"
            yield Problem("batch_size", reason)

    def answer(self, config: dict[str, Any]) -> None:
        """Train, measure, write, and say where."""
        self.data.prepare()
        pictures = splits(self.data, self.target)
        torch.manual_seed(self.seed)
        device, started = named_device(self.device), time.monotonic()
        network = {key: value for key, value in config["network"].items() if key != "_partial_"}
        about = {
            "network": {**network, "shape": [*self.data.shape], "classes": len(pictures.names)},
            "data": {key: value for key, value in config["data"].items() if key != "root"},
            "fingerprint": pictures.training.fingerprint,
            **{k: config[k] for k in ("name", "schedule", "seed", "steps", "batch_size", "lr")},
        }
        module = instantiate(about["network"])
        classifier = NoisyClassifier(module, pictures.names, self.target, about).to(device)
        with tqdm(total=self.steps, disable=not sys.stderr.isatty(), leave=False) as bar:
            train(
                classifier,
                pictures.training,
                self.schedule,
                steps=self.steps,
                batch_size=self.batch_size,
                lr=self.lr,
                seed=self.seed,
                bf16=lightning_precision(self.precision, device.type) == "bf16-mixed",
                watch=lambda loss: bar.update(),
            )
        seconds = time.monotonic() - started
        about["accuracy"] = measured = by_noise_level(classifier, pictures.real)
        name = f"{self.name}_{self.target}_{digest(about, 8)}"
        path = Path(self.out or FOLDER / name) / "classifier.pt"
        classifier.save(path)
        text = json.dumps(about, indent=2) + "\n"
        write_text(path.with_name("about.json"), text)
        print(f"{self.target} of {len(pictures.names)}, {self.steps} steps in {seconds:.0f} s")
        real = [key for key in measured[0] if key not in ("log_snr", "sigma/alpha")]
        print("  accuracy at sigma/alpha" + "".join(f"{name:>12}" for name in real))
        for row in measured:
            shares = "".join(f"{row[name]:>12.1%}" for name in real)
            print(f"  {row['sigma/alpha']:>23.2f}{shares}")
        print(f"  classifier  {shown(path)}")


def main() -> None:
    """The command's entry point."""
    run_request("classifier", ClassifierTraining)
