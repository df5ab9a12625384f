"""The metrics of training and validation."""

from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from unnoise.config.numbers import Count
from unnoise.training.callbacks.measurement import is_logged
from unnoise.training.logging.record import log_metrics
from unnoise.training.module import clocks


class TrainingMetrics(Callback):
    """Logs every ``every`` steps: mean loss, gradient norm, learning rate and images per second.

    If the family has times, also the loss by quartile of the training times, the least noise first
    (of t itself, where a schedule draws t evenly). Means are over the steps since the last line,
    without skipped ones. The time of images per second includes reading, but neither validation
    nor callbacks after this one; so do the processor seconds since the last line, of all threads of
    this process. Results of validation are logged, too; the run is always validated after its last
    step. An interrupted validation is repeated on resume.
    """

    def __init__(self, every: Count = 50) -> None:
        self.every = every
        self._sums: Tensor | None = None  # of weighted losses and of weights, by quartile of times
        self._of_step: list[Tensor] = []  # the same, of its micro-batches
        self._seconds, self._images, self._processor = 0.0, 0, 0.0

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Drop the sums of steps before a rollback; repeat a validation that was interrupted."""
        self._sums, self._seconds, self._images, self._processor = None, 0.0, 0, 0.0
        self._of_step.clear()
        batches = trainer.global_step * trainer.accumulate_grad_batches
        due = trainer.val_check_batch
        if batches > 0 and isinstance(due, int) and batches % due == 0:
            self._validate(trainer)
            trainer.training = True

    def on_train_batch_start(self, trainer: Trainer, module: Any, *_: Any) -> None:
        """Start the clock at the end of the last batch, when reading this one began."""
        self._started = module.idle_since or clocks()

    def on_train_batch_end(self, trainer: Trainer, module: Any, outputs: Any, *_: Any) -> None:
        """Add up; log when due."""
        losses = outputs["per_sample"]
        self._images += len(losses) * trainer.world_size
        quartile = (outputs.get("u", torch.zeros_like(losses)) * 4).long()
        weight = outputs.get("weight", torch.ones_like(losses))
        terms = torch.stack((weight * losses, weight))
        zeros = torch.zeros(2, 4, device=terms.device)
        self._sums = zeros if self._sums is None else self._sums
        self._of_step.append(zeros.index_add(1, quartile, terms))
        step, due = trainer.global_step, False
        if module.stepped:
            if not module.skipped:
                self._sums = sum(self._of_step, start=self._sums)
            self._of_step.clear()
            due = step % self.every == 0 or step in (1, trainer.max_steps)
        if due:
            loss, count = trainer.strategy.reduce(self._sums, reduce_op="sum").tolist()
            more = self._more(trainer, module.of_step)
        wall, processor = clocks()
        self._seconds += wall - self._started[0]
        self._processor += processor - self._started[1]
        if not due:
            return
        metrics = {"train/loss": sum(loss) / sum(count)} if any(count) else {}
        for q in range(4):
            if "u" in outputs and count[q]:
                metrics[f"train/loss_t{25 * q}-{25 * q + 25}%"] = loss[q] / count[q]
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        metrics |= {"train/gradient_norm": module.gradient_norm, "train/learning_rate": rate}
        metrics |= more
        metrics |= {"train/images_per_second": self._images / self._seconds}
        log_metrics(trainer, metrics | {"train/processor_seconds": self._processor})
        self._sums, self._seconds, self._images, self._processor = None, 0.0, 0, 0.0

    def _more(self, trainer: Trainer, of_step: dict[str, Tensor]) -> dict[str, float]:
        """What else the family logs of the last step, its means over all processes."""
        if not of_step:
            return {}
        values = torch.stack([*of_step.values()])
        means = trainer.strategy.reduce(values, reduce_op="mean").tolist()
        return {f"train/{name}": mean for name, mean in zip(of_step, means, strict=True)}

    def on_validation_end(self, trainer: Trainer, module: Any) -> None:
        """Log the results; the time of validation does not count."""
        module.idle_since = clocks()
        found = trainer.callback_metrics.items()
        log_metrics(trainer, {k: float(v) for k, v in found if k.startswith("validation")})

    def on_fit_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Validate the final weights, unless that was done before the run resumed."""
        self._validate(trainer)

    def _validate(self, trainer: Trainer) -> None:
        if not is_logged(trainer, "validation/loss"):
            trainer.validating = True
            loop = trainer.fit_loop.epoch_loop.val_loop
            loop.restarting = False  # else it would skip batches that an earlier one read
            loop.run()
