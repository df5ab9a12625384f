"""Checkpoints: written so that a file under its final name is always whole."""

import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.fabric.plugins import TorchCheckpointIO
from pydantic import Field

from unnoise.files import write_durably

_STOPPING = (signal.SIGINT, signal.SIGTERM)


class DurableCheckpointIO(TorchCheckpointIO):
    """Writes to a temporary file in the same directory, flushes it to disk and then renames it."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Save; what stood at ``path`` before stays whole until the new file is."""
        write_durably(Path(path), lambda temporary: torch.save(checkpoint, temporary))


class Checkpoints(Callback):
    """Saves to ``<run>/checkpoints`` every ``every`` optimizer steps and at the end.

    The last ``keep`` stay. On SIGINT (Ctrl-C) and SIGTERM it saves after the step under way and
    ends the process with status 130 or 143; a second signal ends it at once.
    """

    def __init__(
        self, every: Annotated[int, Field(ge=1)] = 1000, keep: Annotated[int, Field(ge=1)] = 2
    ) -> None:
        self.every, self.keep = every, keep
        self._saved = -1
        self._signal: int | None = None
        self._handlers: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """What a resumed run starts from is saved already; from now on signals wait for a step."""
        self._saved, self._signal = trainer.global_step, None
        if threading.current_thread() is threading.main_thread():
            self._handlers = {s: signal.signal(s, self._on_signal) for s in _STOPPING}

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save when a step that is due, or the last, has just been taken, or a signal came."""
        stop = self._signal is not None
        if trainer.world_size > 1:  # all ranks stop after the same step
            stop = trainer.strategy.reduce_boolean_decision(stop, all=False)
        last = trainer.global_step == trainer.max_steps
        if trainer.global_step % self.every == 0 or last or stop:
            self._save(trainer)
        if stop:
            number = signal.Signals(self._signal or signal.SIGTERM)
            trainer.print(
                f"\n{number.name}: step {trainer.global_step} is saved; "
                "go on with the same command and resume=true"
            )
            sys.exit(128 + number)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Give the signals back."""
        self._release()

    def on_exception(
        self, trainer: Trainer, module: LightningModule, exception: BaseException
    ) -> None:
        """Give the signals back."""
        self._release()

    def _release(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        """Stop after the step that is under way; a second signal stops at once."""
        if self._signal is not None:
            sys.exit(128 + number)
        self._signal = number

    def on_load_checkpoint(
        self, trainer: Trainer, module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Let Lightning count its batches from the optimizer steps taken.

        Data and noise follow from the step alone; so do these counters, wherever between two steps
        (in the middle of an accumulation, say) the checkpoint was written.
        """
        batches = checkpoint["global_step"] * trainer.accumulate_grad_batches
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        for scope in ("total", "current"):
            progress[scope] = dict.fromkeys(progress[scope], batches)

    def _save(self, trainer: Trainer) -> None:
        if trainer.global_step == self._saved:
            return
        self._saved = trainer.global_step
        run_dir = Path(trainer.default_root_dir)
        path = run_dir / "checkpoints" / f"step_{trainer.global_step:08d}.ckpt"
        trainer.save_checkpoint(path, weights_only=False)  # the optimizer too
        if trainer.is_global_zero:
            for old in checkpoints(run_dir)[: -self.keep]:
                old.unlink()


def checkpoints(run_dir: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted((run_dir / "checkpoints").glob("step_*.ckpt"))


def step_of(checkpoint: Path) -> int:
    """The optimizer step a checkpoint was saved at."""
    return int(checkpoint.stem.removeprefix("step_"))
