"""The progress bar."""

import sys
from typing import Any

from lightning import Callback, LightningModule, Trainer
from tqdm import tqdm

from unnoise.training.logging.jsonl import JsonLines


class Progress(Callback):
    """One line with the step, and the loss and speed that were logged last."""

    def __init__(self, name: str, metrics: JsonLines) -> None:
        self.name, self.metrics = name, metrics
        self._bar: Any = None

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Open the bar at the current step."""
        self._bar = tqdm(
            total=trainer.max_steps,
            initial=trainer.global_step,
            desc=self.name,
            unit="step",
            dynamic_ncols=True,
            mininterval=0.2 if sys.stderr.isatty() else 30,  # seconds; a log file wants few lines
            disable=not trainer.is_global_zero,
            bar_format="{desc} {percentage:3.0f}% {bar} {n}/{total} steps "
            "[{elapsed}<{remaining}{postfix}]",
        )

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        """Update the bar."""
        latest = self.metrics.latest
        if "train/loss" in latest:
            loss, speed = latest["train/loss"], latest["train/images_per_second"]
            self._bar.set_postfix_str(f"loss {loss:.4f}, {speed:.0f} images/s", refresh=False)
        self._bar.update(trainer.global_step - self._bar.n)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Close the bar."""
        self._bar.close()

    def on_exception(self, trainer: Trainer, module: Any, exception: BaseException) -> None:
        """Close the bar, if there is one yet."""
        if self._bar is not None:
            self._bar.close()
