"""What every way of training a generative model shares: average, seeds, steps, checkpoints."""

import hashlib
import math
import time
from abc import ABC
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from unnoise.data.content import Facts
from unnoise.data.source import Batch
from unnoise.diffusion.noise import Noise
from unnoise.models.averages import PowerAverage
from unnoise.models.base import GenerativeModel
from unnoise.models.build import named
from unnoise.models.ema import EMA
from unnoise.runs.checkpoints import LAYOUT
from unnoise.training.optimization import OptimizerFactory, factor


class GenerativeModule(LightningModule, ABC):
    """Trains a generative model; ``ema.model`` is validated, drawn from and evaluated.

    A subclass gives ``training_step``: its randomness comes from ``training_noise``, its loss goes
    through ``recorded``. It returns "loss" and "per_sample" (B,), the loss of each sample. The
    training step of a batch is then a function of (seed, place in the training stream) alone.

    A step whose loss or gradient is not finite on any rank is ``skipped`` by all: weights, EMA and
    optimizer stay as they were, and the batch is used up.

    Args:
        model: what is trained and averaged.
        recipe: a ``Recipe``: seed, optimizer, learning rate, clipping and average.
        config: plain containers; goes into each checkpoint, to rebuild the model from.
        rollbacks: how often training went back to an earlier step; each brings other noise.
        helpers: networks that are trained with the model, by its optimizer, but not averaged.
    """

    def __init__(
        self,
        model: GenerativeModel,
        recipe: Any,
        config: dict[str, Any],
        rollbacks: int,
        helpers: tuple[nn.Module, ...] = (),
    ) -> None:
        super().__init__()
        self.model: Any = model
        self.ema: EMA[Any] = EMA(model, recipe.ema_decay, [model.codec])
        lengths = (PowerAverage(model, length, [model.codec]) for length in recipe.ema_lengths)
        self.averages = nn.ModuleList(lengths)  # for later: models.averages
        self.seed: int = recipe.seed
        self.config, self.rollbacks = config, rollbacks
        self.data_facts: Facts = {}
        self._noise_seed = hashed(self.seed, "rollback", rollbacks) if rollbacks else self.seed
        self.gradient_clip: float | None = recipe.gradient_clip
        self.loss = self.gradient_norm = 0.0  # of the last step; the loss is of this rank's share
        self.skipped = False
        self.of_step: dict[str, Tensor] = {}  # more to log, by name; of this rank's share
        self._means: list[Tensor] = []  # the losses of the step's micro-batches
        self.idle_since: tuple[float, float] | None = None  # by ``clocks``
        self._make_optimizer: OptimizerFactory = recipe.optimizer
        frozen = {id(parameter) for parameter in model.codec.parameters()}
        self._averaged: list[Tensor] = [p for p in model.parameters() if id(p) not in frozen]
        self._trained = [
            p for each in (model, *helpers) for p in each.parameters() if p.requires_grad
        ]
        self._rate = recipe.warmup_steps, recipe.lr_decay, recipe.max_steps
        parts = [part for each in (model, *helpers) for part in each.modules()]
        self._reseed = any(isinstance(part, nn.Dropout) and part.p > 0 for part in parts)

    def training_noise(self, batch: Batch, batch_idx: int) -> Noise:
        """The randomness of a training batch.

        Dropout draws from torch's generator, which is seeded here from (seed, step, rank).
        """
        if self._reseed:
            micro = batch_idx % self.trainer.accumulate_grad_batches
            torch.manual_seed(hashed(self._noise_seed, self.global_step, micro, self.global_rank))
        return Noise(self._noise_seed, batch["position"])

    def validation_noise(self, batch: Batch) -> Noise:
        """The randomness of a validation batch: the same at every validation."""
        return Noise(hashed(self.seed, "validation"), batch["position"])

    def recorded(self, mean: Tensor, shown: Tensor | None = None) -> Tensor:
        """The mean loss to minimise; where it is NaN, so is the gradient on all ranks.

        What is watched for spikes is ``shown``, if it is given.
        """
        self._means.append((mean if shown is None else shown).detach())
        return mean * (1 + 0 * mean.detach())

    @property
    def stepped(self) -> bool:
        """Whether the last batch ended an optimizer step, taken or skipped."""
        return not self._means

    def on_train_batch_end(self, *args: Any) -> None:
        """Callbacks have had their turn: from here on the next batch is read."""
        self.idle_since = clocks()

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, and update the average: once an optimizer step, before any checkpoint."""
        super().optimizer_step(*args, **kwargs)
        if not self.skipped:
            for average in (self.ema, *self.averages):
                average.update(self._averaged)

    def configure_gradient_clipping(self, *args: Any, **kwargs: Any) -> None:
        """Scale the gradient to a norm of at most ``gradient_clip``, or drop it if not finite.

        The gradient is that of all ranks already, so all decide alike. An optimizer leaves
        parameters without a gradient, and what it knows of them, alone.
        """
        limit = math.inf if self.gradient_clip is None else self.gradient_clip
        norm = nn.utils.get_total_norm([p.grad for p in self._trained if p.grad is not None])
        self.gradient_norm, *means = torch.stack((norm, *self._means)).tolist()  # waits for the GPU
        self.loss = sum(means) / len(means)
        self._means.clear()
        self.skipped = not math.isfinite(self.gradient_norm)
        if self.skipped:
            for parameter in self._trained:
                parameter.grad = None
        elif self.gradient_norm + 1e-6 > limit:  # else it would be multiplied by 1
            nn.utils.clip_grads_with_norm_(self._trained, limit, norm)

    def configure_optimizers(self) -> Any:
        """The optimizer, and the learning rate as a factor of the step."""
        optimizer = self._make_optimizer(self._trained)
        schedule = LambdaLR(optimizer, lambda step: factor(step, *self._rate))
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what the model is rebuilt from, and what the data hold."""
        checkpoint |= {"config": self.config, "model": named(self.model), "layout": LAYOUT}
        checkpoint |= {"data": self.data_facts}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Let Lightning count its batches from the optimizer steps taken.

        Data and noise follow from the step alone; so do these counters, wherever between two steps
        (in the middle of an accumulation, say) the checkpoint was written.
        """
        batches = checkpoint["global_step"] * self.trainer.accumulate_grad_batches
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        for scope in ("total", "current"):
            progress[scope] = dict.fromkeys(progress[scope], batches)


def clocks() -> tuple[float, float]:
    """Seconds of the wall, and of the processor by all threads of this process."""
    return time.perf_counter(), time.process_time()


def hashed(*key: int | str) -> int:
    """A seed for a purpose: 56 bits of the key's digest."""
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:7], "little")
