"""unnoise-export: write a run as a folder that others can draw from."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch

from unnoise.api import Model, load
from unnoise.cli.request import Request, run_request
from unnoise.config.faults import Look, Run, run_fault
from unnoise.config.numbers import Count
from unnoise.config.problems import Problem
from unnoise.diffusion.samplers import Sampler
from unnoise.files import folder_in_one_piece, full_fault, write_durably, write_text
from unnoise.models.hub import bundle, pipeline
from unnoise.models.hub.remote import push, push_fault
from unnoise.models.trained import DataChanged
from unnoise.networks.adversarial import LatentSampler
from unnoise.networks.autoencoders import Reconstruction
from unnoise.report.card import SAMPLES, card
from unnoise.runs.checkpoints import find_checkpoint
from unnoise.runs.layout import RunDirectory, shown

SHOWN = 16  # pictures on the card


@dataclass(frozen=True, kw_only=True)
class Export(Request):
    """What is to be written: one field for each key of ``conf/export.yaml``."""

    run: Run
    to: Literal["diffusers", "bundle"]
    folder: str | None
    sampler: Sampler | LatentSampler | Reconstruction | None
    steps: Count | None
    averaged: bool
    data_root: str | None
    data_changed: DataChanged
    push: Annotated[str | None, Look(push_fault)]

    def problems(self) -> Iterator[Problem]:
        """Whether there is a place for the folder."""
        known = self.folder is not None or not run_fault(self.run)
        if known and (fault := full_fault(self._target())):
            yield Problem("folder", fault)

    def answer(self, config: dict[str, Any]) -> None:
        """Write, prove, move into place, and say where."""
        started = time.monotonic()
        keys = "averaged", "data_root", "data_changed"
        trained = load(self.run, device="cpu", **{key: getattr(self, key) for key in keys})
        recipe = trained.model.changed(self.sampler or trained.sampler, self.steps, None)
        trained = replace(trained, sampler=recipe)
        with folder_in_one_piece(self._target()) as folder:
            made = self._diffusers if self.to == "diffusers" else self._bundle
            proof = made(trained, folder, config)
        print(f"{proof}\n{time.monotonic() - started:.0f} s")
        print(f"  {self.to:<10} {shown(self._target())}")
        if self.push is not None:
            print(f"  pushed     {push(self._target(), self.push)}")

    def _target(self) -> Path:
        if self.folder is not None:
            return Path(self.folder).expanduser()
        return RunDirectory.of(find_checkpoint(Path(self.run).expanduser())).export / self.to

    def _diffusers(self, trained: Model, folder: Path, config: dict[str, Any]) -> str:
        """Write a pipeline, and prove it; what diffusers did is said in a line."""
        model, recipe = trained.model, trained.sampler
        if reasons := list(pipeline.faults(model, recipe)):
            why = "\n  ".join(reasons)
            raise ValueError(
                f"diffusers cannot draw as this run does; nothing was written:\n  {why}"
            )
        trained.check_recipe(recipe)
        pipeline.write(model, recipe, folder)
        pictures = trained.validation.read(torch.arange(2)) if model.reconstructs else None
        proof = pipeline.proof(model, recipe, folder, pictures)
        line = f"Checked in diffusers by unnoise-export: from the same noise, {proof}."
        tags = {"library_name": "diffusers"}
        name, use = pipeline.pipeline_name(model, recipe), pipeline.example(model, recipe)
        texts = {"captions": pipeline.CAPTIONS} if name == "StableDiffusionPipeline" else {}
        if not model.reconstructs:
            tags["pipeline_tag"] = "text-to-image" if texts else "unconditional-image-generation"
        _show(trained, folder, card(trained, recipe, tags, use, line), **texts)
        return f"{name}: {proof}"

    def _bundle(self, trained: Model, folder: Path, config: dict[str, Any]) -> str:
        """Write a bundle, and draw its picture 0 once more, as who loads it does."""
        trained.check_recipe(trained.sampler)
        node = dict(config["sampler"] or trained.config["sampler"])
        node |= {} if self.steps is None else {"steps": self.steps}
        bundle.write(trained, trained.config | {"sampler": node}, folder)
        use = 'import unnoise\n\nmodel = unnoise.load("this folder")\nmodel.sample(4).grid()'
        line = "`unnoise.load` draws picture 0, and says if it is not the one in this folder."
        tags = {"library_name": "unnoise"}
        _show(trained, folder, card(trained, trained.sampler, tags, use, line))
        if (reason := bundle.difference(Model.load(folder, device="cpu"))) is not None:
            raise ValueError(reason)
        return "bundle: loaded from its folder, it draws the same picture 0"


def _show(trained: Model, folder: Path, text: str, **prompts: Any) -> None:
    """The card, and its sheet."""
    sheet = trained.sample(SHOWN, seed=0, **prompts).grid()
    write_durably(folder / SAMPLES, partial(sheet.save, format="PNG"))
    write_text(folder / "README.md", text)


def main() -> None:
    """The command's entry point."""
    run_request("export", Export)
