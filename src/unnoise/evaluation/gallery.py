"""Samples that a model draws: each set once, kept on disk, and gone on with after a stop."""

import functools
import json
import re
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from unnoise.config.nodes import MODEL, instantiate
from unnoise.config.schema import arguments
from unnoise.data.pixels import ROUNDING
from unnoise.diffusion.samplers import VERSION
from unnoise.distributed.environment import ALONE, Place
from unnoise.files import file_digest, write_durably, write_text
from unnoise.models.averages import Averaged
from unnoise.models.trained import TrainedModel
from unnoise.runs.identity import canonical, digest
from unnoise.runs.layout import telling
from unnoise.untrusted import UnsafeFile, load_arrays


@dataclass(frozen=True, kw_only=True)
class SampleSet:
    """All that decides what sample number n of a set looks like.

    Args:
        checkpoint: of the model. What counts is the content of the file, not its name.
        recipe: a node of ``conf/sampler``, with its steps and its guidance scale.
        seed: of all noise.
        averaged: draw with the averaged weights rather than the last ones, or with an average of
            this relative length.
        precision: of the network.
        prompts: digest of the prompts, or of the data that they are taken from; None where the
            model is unconditional or has prompts of its own, such as all classes in turn.
        classifier: digest of the file of a classifier that guides.
    """

    checkpoint: Path
    recipe: dict[str, Any]
    seed: int = 0
    averaged: Averaged = True
    precision: Literal["fp32", "bf16"] = "fp32"
    prompts: str | None = None
    classifier: str | None = None

    @functools.cached_property
    def model(self) -> str:
        """SHA-256 of the checkpoint file, read once for all sets of a file that did not change."""
        file = self.checkpoint.stat()
        return _digest(self.checkpoint, file.st_mtime_ns, file.st_size)

    @property
    def step(self) -> int | None:
        """After which step the checkpoint was saved, if its name says it."""
        found = re.fullmatch(r"step_(\d+)\.ckpt", self.checkpoint.name)
        return None if found is None else int(found[1])

    @property
    def record(self) -> dict[str, Any]:
        """The set as plain values, the checkpoint by its name and its content."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**values, "checkpoint": self.checkpoint.name, "model": self.model}

    @property
    def words(self) -> list[str]:
        """The first things to know of it, for a file's name: sampler and steps, guidance, seed."""
        stepper = self.recipe.get("stepper", self.recipe)
        kind = str(stepper.get("_target_", "")).rpartition(".")[2].lower()
        scale = (self.recipe.get("guidance") or {}).get("scale")
        found = [f"{kind}-{self.recipe['steps']}" if self.recipe.get("steps") else kind]
        found += [] if scale in (None, 1) else [f"guidance-{scale:g}"]
        return [*found, f"seed-{self.seed}"]

    @property
    def key(self) -> str:
        """The digest that the name of its gallery ends in.

        A value at its default counts as absent, so that a set keeps its key when this class or a
        sampler gets a further argument. The versions of samplers and rounding belong to it.
        """
        values = {each.name: (getattr(self, each.name), each.default) for each in fields(self)}
        set_here = {name: value for name, (value, default) in values.items() if value != default}
        content = canonical({**set_here, "checkpoint": self.model}, arguments)
        return digest([VERSION, ROUNDING, content], 12)


@functools.lru_cache
def _digest(checkpoint: Path, changed: int, size: int) -> str:
    return file_digest(checkpoint)


def prompts_digest(trained: TrainedModel) -> str | None:
    """The fingerprint of the data that a model's prompts are taken from, where it has no own."""
    conditioner = trained.model.conditioner
    first = torch.zeros(1, dtype=torch.int64, device=trained.model.device)
    if conditioner is None or conditioner.examples(first) is not None:
        return None
    return str(trained.validation.fingerprint)


class Gallery:
    """The samples of a set that are drawn so far, in a folder of their own.

    A file holds the samples first … last of its name, with the seconds and the evaluations of the
    network that they took. Files are written whole, so that a stop loses only what was under way;
    one that was damaged since is deleted, with a warning, and its samples count as not drawn.
    Several processes may draw into the same gallery.
    """

    def __init__(self, folder: Path, samples: SampleSet) -> None:
        self.samples, self.folder = samples, telling(folder, samples.words, samples.key)
        self._whole: set[Path] = set()

    def missing(self, n: int, batch_size: int, place: Place = ALONE) -> list[range]:
        """The numbers below n that are not drawn yet, in runs, as far as they are this rank's.

        Numbers k·B … (k + 1)·B − 1 are those of rank k mod world size, whatever is drawn, so that
        processes that look at different times leave nothing out and draw nothing twice.
        """
        there = {number for numbers, _ in self._files() for number in numbers}
        mine = (k for k in range(n) if k // batch_size % place.world_size == place.rank)
        runs: list[range] = []
        for number in (number for number in mine if number not in there):
            if runs and runs[-1].stop == number and number % batch_size:
                runs[-1] = range(runs[-1].start, number + 1)
            else:
                runs.append(range(number, number + 1))
        return runs

    def draw(
        self,
        trained: TrainedModel,
        n: int,
        *,
        batch_size: int,
        place: Place = ALONE,
        watch: Callable[[int], object] = lambda samples: None,
        **options: Any,
    ) -> None:
        """Draw this rank's share of what is missing of samples 0 … n − 1.

        ``watch`` is called with how many were drawn each time some are; the ``options`` are
        further ones of the model's ``draw``, such as captions.
        """
        sampler, device = instantiate(self.samples.recipe, MODEL), trained.model.device
        how = {"sampler": sampler, "seed": self.samples.seed, "batch_size": batch_size}
        bf16, rows = self.samples.precision == "bf16", 0

        def count(module: Any, inputs: tuple[Tensor, ...], output: Any) -> None:
            nonlocal rows
            rows += len(inputs[0])

        handle = trained.model.network.register_forward_hook(count)
        try:
            for numbers in self.missing(n, batch_size, place):
                rows, started = 0, time.perf_counter()
                with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                    drawn = trained.draw(len(numbers), first=numbers.start, **how, **options)
                self.add(numbers.start, drawn.pixels, time.perf_counter() - started, float(rows))
                watch(len(numbers))
        finally:
            handle.remove()

    def add(self, first: int, pixels: Tensor, seconds: float, evaluations: float) -> None:
        """Keep samples (B, *shape) uint8, the first of which is number ``first``."""
        path = self.folder / f"{first:06d}-{first + len(pixels) - 1:06d}.npz"
        record = self.folder / "samples.json"
        if not record.exists():
            text = json.dumps(self.samples.record, indent=2) + "\n"
            write_text(record, text)

        def write(temporary: Path) -> None:
            with temporary.open("wb") as file:
                np.savez(file, pixels=pixels.numpy(), cost=np.array([seconds, evaluations]))

        write_durably(path, write)

    def read(self, n: int) -> Tensor:
        """Samples 0 … n − 1, (n, *shape) uint8.

        Raises:
            ValueError: some of them are not drawn yet.
        """
        if missing := self.missing(n, n):
            raise ValueError(f"{self.folder}: pictures from {missing[0].start} on are not drawn")
        whole: np.ndarray | None = None
        for numbers, path in self._files():
            if numbers.start < n:
                pixels = load_arrays(path)["pixels"]
                if len(pixels) != len(numbers):
                    raise ValueError(f"{path} holds {len(pixels)} pictures, not {len(numbers)}")
                if whole is None:
                    whole = np.empty((n, *pixels.shape[1:]), np.uint8)
                whole[numbers.start : numbers.stop] = pixels[: n - numbers.start]
        assert whole is not None
        return torch.from_numpy(whole)

    @property
    def cost(self) -> tuple[float, float]:
        """Seconds, and evaluations of the network, a sample; the mean over all that is drawn."""
        files = list(self._files())
        spent = np.sum([load_arrays(path)["cost"] for _, path in files], axis=0)
        seconds, evaluations = spent / sum(len(numbers) for numbers, _ in files)
        return float(seconds), float(evaluations)

    def _files(self) -> list[tuple[range, Path]]:
        """The whole ones, with the numbers of their samples."""
        found = []
        for path in sorted(self.folder.glob("*-*.npz")):
            if path not in self._whole and not _is_whole(path):
                warnings.warn(f"{path} is damaged: its pictures are drawn anew", stacklevel=2)
                path.unlink(missing_ok=True)
                continue
            self._whole.add(path)
            first, last = (int(number) for number in path.stem.split("-"))
            found.append((range(first, last + 1), path))
        return found


def _is_whole(path: Path) -> bool:
    """Whether an .npz file has its samples and their cost, and the checksums of what it holds."""
    try:
        return {"pixels", "cost"} <= set(load_arrays(path))
    except (OSError, UnsafeFile):
        return False
