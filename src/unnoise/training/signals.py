"""Signals that end a run: all ranks stop after the same step, and it is saved."""

import signal
import sys
import threading
from types import FrameType
from typing import Any

from lightning import Callback, LightningModule, Trainer

from unnoise.training import ranks
from unnoise.training.checkpoints import save

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Stop(Callback):
    """On a signal to any rank, all of them save after the step under way and end.

    The status is 130 after SIGINT (Ctrl-C), else 143; a second signal ends the process at once.
    """

    def __init__(self) -> None:
        self._signal = 0
        self._handlers: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """From now on signals wait for a step."""
        self._signal = 0
        if threading.current_thread() is threading.main_thread():
            self._handlers = {s: signal.signal(s, self._on_signal) for s in SIGNALS}

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """End the run if a signal came to one of the ranks."""
        interrupted, told = ranks.total([self._signal == signal.SIGINT, self._signal != 0])
        if told:
            number = signal.SIGINT if interrupted else signal.SIGTERM
            save(trainer)
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
        if self._signal:
            sys.exit(128 + number)
        self._signal = number
