"""Numbers of training and validation."""

import time
from typing import Annotated, Any

import torch
from lightning import Callback, LightningModule, Trainer
from pydantic import Field
from torch import Tensor

from unnoise.training.callbacks.measurement import told
from unnoise.training.logging.record import log_metrics
from unnoise.training.module import GenerativeModule


class TrainingMetrics(Callback):
    """Every ``every`` steps: mean loss, gradient norm, rate, speed; loss by quartile of t, if any.

    Means are over the steps since the last line, without those that were skipped. Images a second
    count reading, but neither validation nor what callbacks after this one do. What validation
    finds is written as well, and after the last step there is one more, unless it was the time for
    one. A validation that a kill cut off is made up for when the run is resumed.
    """

    def __init__(self, every: Annotated[int, Field(ge=1)] = 50) -> None:
        self.every = every
        self._sums: Tensor | None = None  # of weighted losses and of weights, by quartile of t
        self._of_step: list[Tensor] = []  # the same, of its micro-batches
        self._seconds, self._images = 0.0, 0

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Leave out what was added up before the run went back to a checkpoint."""
        self._sums, self._seconds, self._images = None, 0.0, 0
        self._of_step.clear()
        batches = trainer.global_step * trainer.accumulate_grad_batches
        due = trainer.val_check_batch
        if batches > 0 and isinstance(due, int) and batches % due == 0:
            self._validate(trainer)
            trainer.training = True

    def on_train_batch_start(
        self, trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Start the clock: when the batch before was done, and this one began to be read."""
        assert isinstance(module, GenerativeModule)
        self._started = module.idle_since or time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add up; log when due."""
        assert isinstance(module, GenerativeModule)
        losses = outputs["per_sample"]
        self._images += len(losses) * trainer.world_size
        quartile = (outputs.get("u", torch.zeros_like(losses)) * 4).long()
        weight = outputs.get("weight", torch.ones_like(losses))
        terms = torch.stack((weight * losses, weight))
        zeros = torch.zeros(2, 4, device=terms.device)
        self._sums = zeros if self._sums is None else self._sums
        self._of_step.append(zeros.index_add(1, quartile, terms))
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            if not module.skipped:
                self._sums = sum(self._of_step, start=self._sums)
            self._of_step.clear()
        if not self._due(trainer, batch_idx):
            self._seconds += time.perf_counter() - self._started
            return
        loss, count = trainer.strategy.reduce(self._sums, reduce_op="sum").tolist()
        self._seconds += time.perf_counter() - self._started
        metrics = {
            **({"train/loss": sum(loss) / sum(count)} if any(count) else {}),
            **{
                f"train/loss_t{25 * q}-{25 * q + 25}%": loss[q] / count[q]
                for q in range(4)
                if "u" in outputs and count[q]
            },
            "train/gradient_norm": module.gradient_norm,
            "train/learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
            "train/images_per_second": self._images / self._seconds,
        }
        log_metrics(trainer, metrics)
        self._sums, self._seconds, self._images = None, 0.0, 0

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Log what validation found; its time does not count."""
        assert isinstance(module, GenerativeModule)
        module.idle_since = time.perf_counter()
        log_metrics(
            trainer,
            {
                k: float(v)
                for k, v in trainer.callback_metrics.items()
                if k.startswith("validation")
            },
        )

    def on_fit_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Validate what came out; also if a run was killed after its last step, and is resumed."""
        self._validate(trainer)

    def _validate(self, trainer: Trainer) -> None:
        if not told(trainer, "validation/loss"):
            trainer.validating = True
            loop = trainer.fit_loop.epoch_loop.val_loop
            loop.restarting = False  # else it would leave out what an earlier one had read
            loop.run()

    def _due(self, trainer: Trainer, batch_idx: int) -> bool:
        step, stepped = trainer.global_step, (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        return stepped and (step % self.every == 0 or step in (1, trainer.max_steps))
