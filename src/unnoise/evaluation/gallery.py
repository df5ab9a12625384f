"""Pictures that a run draws: each setting once, kept on disk, and gone on with after a stop."""

import functools
import hashlib
import json
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from unnoise.config.nodes import MODEL, instantiate
from unnoise.data.pixels import ROUNDING
from unnoise.files import file_digest, write_durably
from unnoise.models.trained import TrainedModel
from unnoise.untrusted import UnsafeFile, load_arrays


@dataclass(frozen=True)
class Setting:
    """All that decides what picture number n of a run looks like.

    ``sampler`` is a node of ``conf/sampler``, its steps and guidance scale included. ``asked`` is
    the fingerprint of the real pictures whose captions, say, are asked for; None where the model
    is asked for nothing, or for classes in turn.
    """

    checkpoint: Path
    averaged: bool
    sampler: dict[str, Any]
    seed: int
    precision: Literal["fp32", "bf16"]
    asked: str | None = None

    @functools.cached_property
    def values(self) -> dict[str, Any]:
        """The setting as plain values; the checkpoint by its name and its content."""
        file = self.checkpoint.stat()
        return {
            "checkpoint": self.checkpoint.name,
            "checkpoint_digest": _digest(self.checkpoint, file.st_mtime_ns, file.st_size),
            "averaged": self.averaged,
            "sampler": self.sampler,
            "seed": self.seed,
            "precision": self.precision,
            "rounding": ROUNDING,
            **({} if self.asked is None else {"asked": self.asked}),
        }


@functools.lru_cache
def _digest(checkpoint: Path, changed: int, size: int) -> str:
    """Of a file as it was when it was last changed, read once for a whole grid of settings."""
    return file_digest(checkpoint)


class Gallery:
    """The pictures drawn so far under a setting, in a folder of the run.

    A file holds the pictures first … last of its name, with the seconds and the evaluations of the
    network that they took. Files are written whole, so that a stop loses only what was under way;
    one that was damaged since is deleted, with a warning, and its pictures count as not drawn.
    Several processes may draw into the same gallery.
    """

    def __init__(self, folder: Path, setting: Setting) -> None:
        self.setting, values = setting, setting.values
        digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
        self.folder = folder / digest[:12]
        self._whole: set[Path] = set()
        if not (self.folder / "setting.json").exists():
            text = json.dumps(values, indent=2) + "\n"
            write_durably(self.folder / "setting.json", lambda path: path.write_text(text))

    def missing(self, n: int, at_once: int, rank: int = 0, ranks: int = 1) -> list[range]:
        """The numbers below n that are not drawn yet, in runs, as far as they are this rank's.

        Numbers k·at_once … (k + 1)·at_once − 1 are those of rank k mod ranks, whatever is drawn, so
        that processes that look at different times leave nothing out and draw nothing twice.
        """
        there = {number for numbers, _ in self._files() for number in numbers}
        runs: list[range] = []
        for number in range(n):
            if number in there or number // at_once % ranks != rank:
                continue
            if runs and runs[-1].stop == number and number % at_once:
                runs[-1] = range(runs[-1].start, number + 1)
            else:
                runs.append(range(number, number + 1))
        return runs

    def add(self, first: int, pixels: Tensor, seconds: float, evaluations: float) -> None:
        """Keep pictures (B, C, H, W) uint8, the first of which is number ``first``."""
        path = self.folder / f"{first:06d}-{first + len(pixels) - 1:06d}.npz"

        def write(temporary: Path) -> None:
            with temporary.open("wb") as file:
                np.savez(file, pixels=pixels.numpy(), cost=np.array([seconds, evaluations]))

        write_durably(path, write)

    def read(self, n: int) -> Tensor:
        """Pictures 0 … n − 1, (n, C, H, W) uint8.

        Raises:
            ValueError: some of them are not drawn yet.
        """
        if missing := self.missing(n, n):
            raise ValueError(f"{self.folder}: pictures from {missing[0].start} on are not drawn")
        rows: dict[int, np.ndarray] = {}
        for numbers, path in self._files():
            if numbers.start < n:
                rows |= zip(numbers, load_arrays(path)["pixels"], strict=True)
        return torch.from_numpy(np.stack([rows[number] for number in range(n)]))

    @property
    def cost(self) -> tuple[float, float]:
        """Seconds, and evaluations of the network, a picture; the mean over all that is drawn."""
        files = list(self._files())
        spent = np.sum([load_arrays(path)["cost"] for _, path in files], axis=0)
        seconds, evaluations = spent / sum(len(numbers) for numbers, _ in files)
        return float(seconds), float(evaluations)

    def _files(self) -> list[tuple[range, Path]]:
        """The whole ones, with the numbers of their pictures."""
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
    """Whether an .npz file has its pictures and its cost, and the checksums of what it holds."""
    try:
        return {"pixels", "cost"} <= set(load_arrays(path))
    except (OSError, UnsafeFile):
        return False


def draw(
    gallery: Gallery,
    trained: TrainedModel,
    n: int,
    *,
    batch_size: int,
    rank: int = 0,
    ranks: int = 1,
    watch: Callable[[int], object] = lambda pictures: None,
) -> None:
    """Draw what is missing of pictures 0 … n − 1: this rank's share of it.

    ``watch`` is told how many pictures were drawn each time some are.
    """
    setting = gallery.setting
    sampler = instantiate(setting.sampler, MODEL)
    network, device = trained.model.denoiser.network, trained.model.device
    rows = 0

    def count(module: Any, inputs: tuple[Tensor, ...], output: Any) -> None:
        nonlocal rows
        rows += len(inputs[0])

    handle = network.register_forward_hook(count)
    try:
        for numbers in gallery.missing(n, batch_size, rank, ranks):
            rows, started = 0, time.perf_counter()
            with torch.autocast(device.type, torch.bfloat16, enabled=setting.precision == "bf16"):
                pixels = trained.draw(
                    len(numbers),
                    sampler=sampler,
                    seed=setting.seed,
                    first=numbers.start,
                    batch_size=batch_size,
                ).pixels
            gallery.add(numbers.start, pixels, time.perf_counter() - started, float(rows))
            watch(len(numbers))
    finally:
        handle.remove()
