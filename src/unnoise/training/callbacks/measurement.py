"""Callbacks that measure the EMA weights every few steps, apart from training."""

import time
from abc import ABC, abstractmethod
from typing import Any, cast

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.seed import isolate_rng

from unnoise.config.numbers import Count
from unnoise.training.logging.jsonl import JsonLines
from unnoise.training.logging.record import log_metrics
from unnoise.training.module import GenerativeModule


class Measurement(Callback, ABC):
    """Measures the EMA weights every ``every`` optimizer steps, and at the end.

    Training stays the same: random generators are restored, and if the callback comes after
    TrainingMetrics, its time does not count there. The seconds that it took are logged as the
    metric ``seconds``. A measurement that a kill interrupted is repeated when the run resumes.
    """

    seconds: str

    def __init__(self, every: Count) -> None:
        self.every = every

    @abstractmethod
    def measure(self, trainer: Trainer, module: GenerativeModule) -> dict[str, float]:
        """The metrics by name, over all processes; every process calls this."""

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Measure if it was due at the checkpoint from which the run resumes."""
        if trainer.global_step > 0 and trainer.global_step % self.every == 0:
            self._measure(trainer, module)

    def on_train_batch_end(self, trainer: Trainer, module: Any, *_: Any) -> None:
        """Measure when due."""
        if module.stepped and trainer.global_step % self.every == 0:
            self._measure(trainer, module)

    def on_fit_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Measure the final weights."""
        self._measure(trainer, module)

    def _measure(self, trainer: Trainer, module: Any) -> None:
        if is_logged(trainer, self.seconds):
            return
        started, model = time.perf_counter(), module.ema.model
        training = model.training
        with isolate_rng(include_cuda=module.device.type == "cuda"), torch.inference_mode():
            model.eval()
            found = self.measure(trainer, module)
            model.train(training)
        log_metrics(trainer, {**found, self.seconds: time.perf_counter() - started})


def is_logged(trainer: Trainer, metric: str) -> bool:
    """Whether the run has logged a metric at the trainer's step; the same on all ranks."""
    step, lines = trainer.global_step, trainer.loggers[0]
    found = trainer.is_global_zero and any(
        row["step"] == step and metric in row for row in cast(JsonLines, lines).rows()
    )
    return trainer.strategy.broadcast(found)
