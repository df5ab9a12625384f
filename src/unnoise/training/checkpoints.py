"""Checkpoints: written so that a file under its final name is always whole."""

import os
from pathlib import Path
from typing import Annotated, Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.fabric.plugins import TorchCheckpointIO
from pydantic import Field

from unnoise.files import write_durably
from unnoise.safe import load_tensors


class DurableCheckpointIO(TorchCheckpointIO):
    """Writes to a temporary file in the same directory, flushes it to disk and then renames it."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Save; what stood at ``path`` before stays whole until the new file is."""
        write_durably(Path(path), lambda temporary: torch.save(checkpoint, temporary))

    def load_checkpoint(
        self, path: str | os.PathLike[str], map_location: Any = None, weights_only: Any = None
    ) -> dict[str, Any]:
        """Plain containers and tensors, on the CPU, whatever else is asked for.

        Raises:
            Refused: the file is damaged, or brings something else.
        """
        content: dict[str, Any] = load_tensors(Path(path))
        return content



class Checkpoints(Callback):
    """Saves to ``<run>/checkpoints`` every ``every`` optimizer steps and at the end.

    The last ``keep`` stay.
    """

    def __init__(
        self, every: Annotated[int, Field(ge=1)] = 1000, keep: Annotated[int, Field(ge=1)] = 2
    ) -> None:
        self.every, self.keep = every, keep
        self._saved = -1

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """What a resumed run starts from is saved already."""
        self._saved = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save when a step that is due, or the last, has just been taken."""
        step = trainer.global_step
        if step != self._saved and (step % self.every == 0 or step == trainer.max_steps):
            self._saved = step
            save(trainer)
            if trainer.is_global_zero:
                for old in checkpoints(Path(trainer.default_root_dir))[: -self.keep]:
                    old.unlink()


def save(trainer: Trainer, together: bool = True) -> Path:
    """Write a checkpoint of the step at which the trainer stands.

    Every rank calls it, or with ``together=False`` rank 0 alone, whatever became of the others.
    """
    step = trainer.global_step
    path = Path(trainer.default_root_dir) / "checkpoints" / f"step_{step:08d}.ckpt"
    if together:
        trainer.save_checkpoint(path, weights_only=False)  # the optimizer too
    elif trainer.is_global_zero:
        content = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
        trainer.strategy.checkpoint_io.save_checkpoint(content, path)
    return path


def newest_whole(run_dir: Path) -> Path | None:
    """The newest checkpoint of a run that is whole; None if it has none."""
    return next(reversed(checkpoints(run_dir)), None)


def checkpoints(run_dir: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted((run_dir / "checkpoints").glob("step_*.ckpt"))


def step_of(checkpoint: Path) -> int:
    """The optimizer step a checkpoint was saved at."""
    return int(checkpoint.stem.removeprefix("step_"))
