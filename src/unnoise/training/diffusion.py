"""The LightningModule: one training step of a diffusion model, and its average."""

import hashlib
import math
import time
from typing import Any, Literal

import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from unnoise.data.source import Batch
from unnoise.diffusion.noise import Noise
from unnoise.diffusion.objectives import Objective
from unnoise.diffusion.times import TimeSampler, UniformTimes
from unnoise.models.diffusion import DiffusionModel
from unnoise.models.ema import EMA
from unnoise.training.optimization import OptimizerFactory, factor
from unnoise.training.validation import LossBySNR


class DiffusionModule(LightningModule):
    """Trains a DiffusionModel by an objective; ``ema.model`` is what one validates and samples.

    Noise, times and dropped conditions come from (seed, place in the training stream), so a step
    is a function of its batch alone, and of the losses before where ``times`` learns from them.
    Dropout inside the network draws from torch's generator, which is seeded for every step from
    (seed, step, rank).

    A step whose loss or gradient is not finite on any rank is ``skipped`` by all: weights, average,
    optimizer and times stay as they were, and the batch is used up.

    Args:
        model: what is trained.
        objective: the loss.
        times: how training times are drawn.
        optimizer: parameters to optimizer.
        ema_decay: of the average.
        seed: of all noise; after ``rollbacks`` training noise is that of both.
        condition_dropout: probability that a sample's condition is replaced by the null one.
        warmup_steps: over which the learning rate rises from 0.
        lr_decay: "cosine" lets it fall to 0 at ``max_steps``.
        gradient_clip: greatest norm of the gradient; None does not clip.
        max_steps: optimizer steps of the run.
        config: plain containers; goes into each checkpoint, to rebuild the model from.
        rollbacks: how often training went back to an earlier step; each brings other noise.
    """

    def __init__(
        self,
        model: DiffusionModel,
        objective: Objective,
        times: TimeSampler,
        optimizer: OptimizerFactory,
        *,
        ema_decay: float,
        seed: int,
        max_steps: int,
        condition_dropout: float = 0.0,
        warmup_steps: int = 0,
        lr_decay: Literal["constant", "cosine"] = "constant",
        gradient_clip: float | None = None,
        config: dict[str, Any] | None = None,
        rollbacks: int = 0,
    ) -> None:
        super().__init__()
        self.model, self.objective, self.times = model, objective, times
        self.ema = EMA(model, ema_decay)
        self.seed, self.condition_dropout, self.config = seed, condition_dropout, config
        self.rollbacks = rollbacks
        self._noise_seed = _hash(seed, "rollback", rollbacks) if rollbacks else seed
        self.gradient_clip = gradient_clip
        self.loss = self.gradient_norm = 0.0  # of the last step; the loss is of this rank's share
        self.skipped = False
        self._means: list[Tensor] = []  # the losses of the step's micro-batches
        self.idle_since: float | None = None
        self._seen: list[Tensor] = []  # (3, B): place, u and loss of the step's micro-batches
        self._make_optimizer = optimizer
        self._trained = list(model.parameters())
        self._rate = warmup_steps, lr_decay, max_steps
        self._reseed = any(isinstance(m, nn.Dropout) and m.p > 0 for m in model.modules())

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Algorithm 1: the mean loss, and for callbacks the parts of each sample's Loss."""
        if self._reseed:
            micro = batch_idx % self.trainer.accumulate_grad_batches
            torch.manual_seed(_hash(self._noise_seed, self.global_step, micro, self.global_rank))
        noise = Noise(self._noise_seed, batch["position"])
        loss = self.model.loss(self.objective, batch, noise, self.times, self.condition_dropout)
        per_sample = loss.per_sample.detach()
        if self.times.learns:
            place = (batch["position"] % 2**24).to(loss.u)  # exact; only their order matters
            self._seen.append(torch.stack((place, loss.u, per_sample)))
        mean = loss.mean
        self._means.append(mean.detach())
        mean = mean * (1 + 0 * mean.detach())  # where NaN, the gradient is, and that of all ranks
        return {"loss": mean, "per_sample": per_sample, "u": loss.u, "weight": loss.weight}

    def on_train_batch_end(self, *args: Any) -> None:
        """Callbacks have had their turn: from here on the next batch is read."""
        self.idle_since = time.perf_counter()

    def on_validation_epoch_start(self) -> None:
        """Start from nothing."""
        self._losses = LossBySNR(self.device)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """The loss of the averaged model, on noise and times that are the same at every call."""
        if not len(batch["position"]):  # a rank's share of the last batch can be empty
            return
        model, noise = self.ema.model, Noise(_hash(self.seed, "validation"), batch["position"])
        loss = model.loss(self.objective, batch, noise, UniformTimes())
        self._losses.add(self.objective.level(model.schedule, loss.u), loss.per_sample)

    def on_validation_epoch_end(self) -> None:
        """Means over all processes; TrainingMetrics writes them at the optimizer step."""
        means = self._losses.means(self.trainer.strategy)
        self.log_dict(means, logger=False, sync_dist=True)  # equal on all ranks already

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, and let the average follow: once an optimizer step, before any checkpoint."""
        super().optimizer_step(*args, **kwargs)
        if not self.skipped:
            self.ema.update([*self._trained])
            self._observe()
        self._seen.clear()

    def _observe(self) -> None:
        """Let the time sampler learn from the whole step, in the stream's order on every rank."""
        if self._seen:
            gathered = self.trainer.strategy.all_gather(torch.cat(self._seen, dim=1))
            place, u, loss = gathered.movedim(-2, 0).flatten(1)
            order = place.argsort()
            self.times.observe(u[order], loss[order])

    def configure_gradient_clipping(self, *args: Any, **kwargs: Any) -> None:
        """Scale the gradient to a norm of at most ``gradient_clip``, or drop it if not finite.

        The gradient is that of all ranks already, so all decide alike. An optimizer leaves
        parameters without a gradient, and what it knows of them, alone.
        """
        limit = math.inf if self.gradient_clip is None else self.gradient_clip
        norm = nn.utils.clip_grad_norm_(self._trained, limit)
        self.gradient_norm, *means = torch.stack((norm, *self._means)).tolist()  # waits for the GPU
        self.loss = sum(means) / len(means)
        self._means.clear()
        self.skipped = not math.isfinite(self.gradient_norm)
        if self.skipped:
            for parameter in self._trained:
                parameter.grad = None

    def configure_optimizers(self) -> Any:
        """The optimizer, and the learning rate as a factor of the step."""
        optimizer = self._make_optimizer(self._trained)
        schedule = LambdaLR(optimizer, lambda step: factor(step, *self._rate))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the config."""
        checkpoint["config"] = self.config

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Let Lightning count its batches from the optimizer steps taken.

        Data and noise follow from the step alone; so do these counters, wherever between two steps
        (in the middle of an accumulation, say) the checkpoint was written.
        """
        batches = checkpoint["global_step"] * self.trainer.accumulate_grad_batches
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        for scope in ("total", "current"):
            progress[scope] = dict.fromkeys(progress[scope], batches)


def _hash(*key: int | str) -> int:
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:7], "little")
