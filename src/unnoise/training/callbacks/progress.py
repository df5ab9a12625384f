"""The progress bar."""

import sys
from typing import Any

from lightning import Callback, LightningModule, Trainer
from tqdm import tqdm

from unnoise.training.callbacks.samples import SampleGrid
from unnoise.training.logging.jsonl import JsonLines

FORWARD = 1 / 3
"""Of a training step: what an evaluation of the network takes, the backward pass being twice it."""


class Progress(Callback):
    """One line with the step, the time left, and the loss and speed that were logged last.

    The time left is that of the steps, at their pace so far, and of the last drawing.
    """

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
            bar_format="{desc} {percentage:3.0f}% {bar} {n}/{total} steps [{elapsed}{postfix}]",
        )

    def on_train_batch_end(self, trainer: Trainer, module: Any, *_: Any) -> None:
        """Update the bar."""
        latest = self.metrics.latest
        if "train/loss" in latest:
            loss, speed = latest["train/loss"], latest["train/images_per_second"]
            state = self._bar.format_dict
            steps = (state["total"] - state["n"]) / max(1, state["n"] - state["initial"])
            seconds = state["elapsed"] * steps + self._last_drawing(trainer, module) / speed
            left = f"<{tqdm.format_interval(seconds)}, loss {loss:.4f}, {speed:.0f} images/s"
            self._bar.set_postfix_str(left, refresh=False)
        self._bar.update(trainer.global_step - self._bar.n)

    def _last_drawing(self, trainer: Any, module: Any) -> float:
        """How many images of training take as long."""
        grids = (each for each in trainer.callbacks if isinstance(each, SampleGrid))
        return FORWARD * sum(grid.count * int(module.model.steps(grid.final)) for grid in grids)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Close the bar."""
        self._bar.close()

    def on_exception(self, trainer: Trainer, module: Any, exception: BaseException) -> None:
        """Close the bar, if there is one yet."""
        if self._bar is not None:
            self._bar.close()
