"""Checkpoints, written so that a file with its final name is always complete."""

import os
from pathlib import Path
from typing import Any, Literal

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.fabric.plugins import TorchCheckpointIO
from torch import Tensor

from unnoise.config.numbers import Count
from unnoise.distributed import group as ranks
from unnoise.files import remove_with_digest, write_with_digest
from unnoise.runs.checkpoints import check_layout
from unnoise.runs.layout import RunDirectory, step_of
from unnoise.training.logging.record import alert
from unnoise.untrusted import load_tensors


class NotFinite(FloatingPointError):
    """A weight is not finite; nothing was saved."""


class NotSaved(RuntimeError):
    """A checkpoint could not be written; earlier ones are unchanged."""


class DurableCheckpointIO(TorchCheckpointIO):
    """Writes a temporary file in the same directory, syncs it, notes its digest, and renames it.

    An OSError, for example of a full disk, is stored in ``failure`` and not raised: other ranks
    wait for this one at the end of ``Trainer.save_checkpoint``; ``save`` then raises on all ranks.
    """

    failure: OSError | None = None

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Save; an older file at ``path`` stays until the new one is complete."""
        self.failure = None
        try:
            write_with_digest(Path(path), lambda temporary: _write(checkpoint, temporary))
        except OSError as error:
            self.failure = error

    def load_checkpoint(
        self, path: str | os.PathLike[str], map_location: Any = None, weights_only: Any = None
    ) -> dict[str, Any]:
        """Plain containers and tensors on the CPU; the other arguments are ignored.

        Raises:
            UnsafeFile: the file is damaged, holds other objects, or has an older layout.
        """
        content: dict[str, Any] = load_tensors(Path(path))
        check_layout(Path(path), content)
        return content


class Checkpoints(Callback):
    """Saves to ``<run>/checkpoints`` every ``every`` optimizer steps, at the start and at the end.

    Args:
        every: optimizer steps from one checkpoint to the next.
        keep: number of newest checkpoints to keep.
        keep_every: checkpoints at multiples of it are saved and kept, too; None for none.
        on_full_disk: after the alert that a checkpoint cannot be written, "continue" tries again
            when the next is due, and "stop" ends the run. If the last one cannot be written, the
            run fails.

    Raises:
        NotSaved: as ``on_full_disk`` says.
        NotFinite: a weight is not finite.
    """

    def __init__(
        self,
        every: Count = 1000,
        keep: Count = 2,
        keep_every: Count | None = None,
        on_full_disk: Literal["continue", "stop"] = "continue",
    ) -> None:
        self.every, self.keep, self.keep_every = every, keep, keep_every
        self.on_full_disk = on_full_disk
        self._saved = -1

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Save the first step of a new run."""
        self._saved = trainer.global_step
        if trainer.is_global_zero:  # left by a killed process
            for left in _files(trainer).checkpoints.glob(".*.tmp"):
                left.unlink()
        if trainer.ckpt_path is None:
            self._save(trainer)

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        """Save if a checkpoint is due, or after the last step."""
        step = trainer.global_step
        if step != self._saved and step == self._due(step - 1, trainer.max_steps):
            self._saved = step
            self._save(trainer)

    def _due(self, step: int, last: int) -> int:
        """The step of the first checkpoint after ``step``."""
        periods = (self.every, self.keep_every or self.every)
        return min(last, *((step // n + 1) * n for n in periods))

    def _save(self, trainer: Trainer) -> None:
        step, last = trainer.global_step, trainer.max_steps
        try:
            save(trainer)
        except NotSaved as error:
            ends = step == last or self.on_full_disk == "stop"
            then = "the run ends" if ends else f"next try at step {self._due(step, last)}"
            alert(trainer, "checkpoint not written", f"{error}; {then}")
            if ends:
                raise
            return
        if trainer.is_global_zero:
            old, kept = _files(trainer).saved()[: -self.keep], self.keep_every or last + 1
            try:
                remove_with_digest([p for p in old if step_of(p) % kept or step_of(p) == 0])
            except OSError as error:
                alert(trainer, "old checkpoints not removed", str(error))


def save(trainer: Trainer, together: bool = True) -> Path:
    """Write a checkpoint of the trainer's current step.

    Every rank calls it, or with ``together=False`` rank 0 alone, even if other ranks are gone.

    Raises:
        NotFinite: on every rank; a weight or an averaged weight is not finite.
        NotSaved: on every rank; for example, the disk is full.
    """
    step, writer = trainer.global_step, trainer.strategy.checkpoint_io
    assert isinstance(writer, DurableCheckpointIO)
    path = _files(trainer).checkpoint(step)
    broken = not _finite(trainer.lightning_module.state_dict())
    if any(ranks.sum_over_ranks([broken])) if together else broken:
        raise NotFinite(f"a weight is not finite after step {step}, which is not saved")
    if together:
        trainer.save_checkpoint(path, weights_only=False)  # the optimizer too
    elif trainer.is_global_zero:
        content = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
        writer.save_checkpoint(content, path)
    failure = ranks.broadcast(writer.failure) if together else writer.failure
    if failure is not None:
        raise NotSaved(f"the checkpoint of step {step} could not be written: {failure}")
    return path


def _files(trainer: Trainer) -> RunDirectory:
    return RunDirectory(Path(trainer.default_root_dir))


def _finite(state: dict[str, Tensor]) -> bool:
    """Whether a state is finite, by its norms; as these may overflow, then by each number."""
    tensors = [tensor for tensor in state.values() if tensor.is_floating_point()]
    norms = torch.stack([norm.double() for norm in torch._foreach_norm(tensors)])
    return bool(norms.isfinite().all()) or all(bool(t.isfinite().all()) for t in tensors)


def _write(content: dict[str, Any], path: Path) -> None:
    with path.open("wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # raised by torch in place of the file's error
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise
