"""The names of the files in a run directory."""

import os
import re
from collections.abc import Iterable
from pathlib import Path


class RunDirectory:
    """Where everything is that a run leaves; none of it need be there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.manifest = path / "manifest.json"
        self.content = path / "content.json.gz"  # of the data
        self.metrics = path / "metrics.jsonl"
        self.checkpoints = path / "checkpoints"
        self.samples = path / "samples"
        self.denoising = self.samples / "denoising.gif"
        self.training = self.samples / "training.gif"
        self.forward_process = self.samples / "forward_process.png"
        self.report = path / "report.html"
        self.drawn = path / "drawn"  # by unnoise-sample
        self.bundle, self.weights = path / "bundle.json", path / "model.safetensors"
        self.export = path / "export"
        self.evaluation = path / "evaluation"
        self.figures = path / "figures"
        self.error = path / "error.txt"  # of a job of a sweep
        self.bad_batch = path / "bad_batch.json"
        self.lock = path / ".lock"
        self.tensorboard = path / "tensorboard"
        self.wandb = path / "wandb"
        self.wandb_id = path / "wandb_id"

    @classmethod
    def of(cls, checkpoint: Path) -> "RunDirectory":
        """That of the run that saved a checkpoint, or a bundle; else the working directory."""
        if checkpoint.name == "model.safetensors":
            return cls(checkpoint.parent)
        inside = checkpoint.parent.name == "checkpoints"
        return cls(checkpoint.parents[1] if inside else Path())

    def checkpoint(self, step: int) -> Path:
        """The checkpoint of an optimizer step."""
        return self.checkpoints / f"step_{step:08d}.ckpt"

    def grid(self, step: int) -> Path:
        """The samples that were drawn at an optimizer step."""
        return self.samples / f"step_{step:08d}.png"

    def grids(self) -> list[Path]:
        """All grids of samples, oldest first."""
        return sorted(self.samples.glob("step_*.png"))

    def saved(self) -> list[Path]:
        """All checkpoints, oldest first."""
        return sorted(self.checkpoints.glob("step_*.ckpt"))

    def results(self) -> dict[str, Path]:
        """The files that a person wants to open, by what they show."""
        found = {
            "sample grid": self.grids()[-1:],
            "denoising": [self.denoising],
            "training": [self.training],
            "forward process": [self.forward_process],
            "metrics": [self.metrics],
            "checkpoint": self.saved()[-1:],
        }
        return {name: path for name, paths in found.items() for path in paths if path.exists()}


def step_of(path: Path) -> int:
    """The optimizer step in the name of a checkpoint or a grid."""
    return int(path.stem.removeprefix("step_"))


def telling(folder: Path, words: Iterable[object], digest: str, suffix: str = "") -> Path:
    """A path in a folder whose name says what it holds, with the digest last.

    One that is there already under any name that ends in the digest is kept. Words that are None
    are left out.
    """
    if earlier := sorted(folder.glob(f"*{digest}{suffix}")):
        return earlier[0]
    plain = (
        re.sub(r"[^A-Za-z0-9.]+", "-", str(word)).strip("-.")[:40]
        for word in words
        if word is not None
    )
    return folder / ("_".join([*filter(None, plain), digest]) + suffix)


def shown(path: Path) -> str:
    """A path as seen from the working directory, if it lies below it."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
