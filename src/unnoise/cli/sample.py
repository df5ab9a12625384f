"""unnoise-sample: draw pictures from a trained model."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from unnoise.api import Model, Pictures, load
from unnoise.cli.request import Request, run_request
from unnoise.config.faults import Device, Folder, Look, Run, run_fault
from unnoise.config.numbers import Count, Number
from unnoise.config.problems import Problem
from unnoise.data.decoding import Decoder
from unnoise.diffusion.editing import Edit
from unnoise.diffusion.samplers import Sampler, Watch
from unnoise.distributed.group import gather, join
from unnoise.files import folder_fault, write_text
from unnoise.models.averages import Averaged
from unnoise.models.classifier import NoisyClassifier, classifier_fault, classifier_file
from unnoise.models.edits import EditKeys, PromptKeys
from unnoise.models.trained import DataChanged
from unnoise.networks.adversarial import LatentSampler
from unnoise.networks.autoencoders import Reconstruction
from unnoise.report.sheets import comparison
from unnoise.runs.checkpoints import find_checkpoint
from unnoise.runs.identity import Role, digest
from unnoise.runs.layout import RunDirectory, shown


@dataclass(frozen=True, kw_only=True)
class Drawing(PromptKeys, EditKeys, Request):
    """What is to be drawn: one field for each key of ``conf/sample.yaml``."""

    run: Annotated[Run, Role.NAME]
    n: Count
    seed: Number
    first: Number
    batch_size: Annotated[Count, Role.MACHINE]
    decode_pixels: Annotated[Count, Role.MACHINE]
    sampler: Sampler | LatentSampler | Reconstruction | None
    steps: Count | None
    guidance: Annotated[float, Field(ge=0)] | None
    weak: Annotated[str | None, Look(run_fault)]
    classifier: Annotated[str | None, Look(classifier_fault)]
    data_root: Annotated[str | None, Role.MACHINE]
    data_changed: DataChanged
    averaged: Averaged
    device: Device
    out: Annotated[Folder, Role.CALL]
    singles: Annotated[bool, Role.CALL]

    def problems(self) -> Iterator[Problem]:
        """What is wrong between the keys, or with pictures that they name."""
        if self.weak is not None and self.classifier is not None:
            yield Problem("weak", "guidance is by a weak model or by a classifier, not by both")
        if self.weak is not None and self.guidance is None:
            yield Problem("guidance", "say how far to go from the weak model, as in guidance=2")
        if self.negative is not None and self.guidance == 1:
            yield Problem("guidance", "1 is off, so that negative would do nothing: set it above 1")
        yield from self.prompt_problems()
        yield from self.edit_problems(self.n, self.first)
        run = None if run_fault(self.run) else RunDirectory.of(find_checkpoint(Path(self.run)))
        if self.out is None and run and (fault := folder_fault(run.drawn)):
            yield Problem("out", fault)

    def answer(self, config: dict[str, Any]) -> None:
        """Draw, write, and say where; of several processes each draws a part, the first writes."""
        started = time.monotonic()
        keys = "averaged", "device", "data_root", "data_changed"
        trained = load(self.run, **{key: getattr(self, key) for key in keys})
        decoder = Decoder.of(trained.model.shape, trained.config["data"])
        edit, given = self.make_edit(self.n, trained.model.codec, decoder)
        if not (parts := gather(self.drawn(trained, edit, decoder))):
            return
        pictures = Pictures.joined(part for part in parts if part is not None)
        sampler = config["sampler"] or trained.config["sampler"]
        kind = sampler.get("stepper", sampler)["_target_"].rpartition(".")[2].lower()
        steps = self.steps or sampler.get("steps", 1) or "all"
        about = {"checkpoint": str(trained.checkpoint), **self.deciding(config)}
        about |= {"sampler": sampler} | self.texts
        name = "-".join(str(part) for part in (self.edit, kind, steps) if part)
        home = RunDirectory.of(trained.checkpoint).drawn / f"{name}_{digest(about, 8)}"
        out = Path(self.out or home)
        compared = {"comparison": comparison(given, pictures)} if given else {}
        files = pictures.write(out, **compared)
        if self.singles:
            pictures.save(out / "images", self.first)
            files["singles"] = "images"
        write_text(out / "about.json", json.dumps(about, indent=2) + "\n")
        took = f"{time.monotonic() - started:.0f} s"
        print(f"{len(pictures)} pictures in {took}, by {kind}, {steps} steps")
        for what, file in files.items():
            print(f"  {what:<10} {shown(out / file)}")

    def drawn(
        self, trained: Model, edit: Edit | None, decoder: Decoder, watch: Watch | None = None
    ) -> Pictures | None:
        """This process's pictures, None if it has none; with a watch there is no bar."""
        here, device = join(), trained.model.device
        first, end = (self.n * k // here.world_size for k in (here.rank, here.rank + 1))
        if first == end:
            return None
        keys = "sampler", "steps", "guidance", "seed", "batch_size", "decode_pixels"
        options = {key: getattr(self, key) for key in keys} | self.prompts(decoder)
        if self.weak is not None:
            options["weak"] = load(self.weak, averaged=self.averaged, device=str(device))
        if self.classifier is not None:
            options["classifier"] = NoisyClassifier.load(classifier_file(self.classifier), device)
        options |= {"first": self.first + first, "edit": edit, "watch": watch}
        bar = here.rank == 0 and watch is None
        return trained.sample(end - first, progress=bar, **options)


def main() -> None:
    """The command's entry point."""
    run_request("sample", Drawing)
