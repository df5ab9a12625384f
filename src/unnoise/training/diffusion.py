"""How a diffusion model is trained and validated."""

from typing import Any

import torch
from torch import Tensor

from unnoise.data.source import Batch
from unnoise.diffusion.objectives import Objective
from unnoise.diffusion.times import TimeSampler, UniformTimes
from unnoise.models.diffusion import DiffusionModel
from unnoise.training.module import GenerativeModule
from unnoise.training.validation import LossBySNR


class DiffusionModule(GenerativeModule):
    """Trains a DiffusionModel by the objective of a ``DiffusionRecipe``.

    A step is a function of its batch, and of the losses before where ``times`` learns from them.
    """

    def __init__(self, recipe: Any, config: dict[str, Any], rollbacks: int = 0) -> None:
        model = DiffusionModel.of(vars(recipe), recipe.data.shape)
        if recipe.initial is not None:
            model.load_state_dict(recipe.initial.weights)
        super().__init__(model, recipe, config, rollbacks)
        self.objective: Objective = recipe.objective
        self.times: TimeSampler = recipe.times
        self.condition_dropout: float = recipe.condition_dropout
        self._seen: list[Tensor] = []  # (3, B): place, u and loss of the step's micro-batches

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Algorithm 1: the mean loss, and for callbacks the parts of each sample's Loss."""
        noise = self.training_noise(batch, batch_idx)
        objective = self.objective.at(self.global_step)
        loss = self.model.loss(objective, batch, noise, self.times, self.condition_dropout)
        per_sample = loss.per_sample.detach()
        if self.times.learns:
            place = (batch["position"] % 2**24).to(loss.u)  # exact; only their order matters
            self._seen.append(torch.stack((place, loss.u, per_sample)))
        mean = self.recorded(loss.mean)
        return {"loss": mean, "per_sample": per_sample, "u": loss.u, "weight": loss.weight}

    def on_validation_epoch_start(self) -> None:
        """Start from nothing."""
        self._losses = LossBySNR(self.device)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """The loss of the averaged model, on noise and times that are the same at every call."""
        if not len(batch["position"]):  # a rank's share of the last batch can be empty
            return
        model = self.ema.model
        loss = model.loss(self.objective, batch, self.validation_noise(batch), UniformTimes())
        self._losses.add(self.objective.level(model.schedule, loss.u), loss.per_sample)

    def on_validation_epoch_end(self) -> None:
        """Means over all processes; TrainingMetrics writes them at the optimizer step."""
        means = self._losses.means(self.trainer.strategy)
        self.log_dict(means, logger=False, sync_dist=True)  # equal on all ranks already

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, and let the times learn from the whole step."""
        super().optimizer_step(*args, **kwargs)
        if self._seen and not self.skipped:
            gathered = self.trainer.strategy.all_gather(torch.cat(self._seen, dim=1))
            place, u, loss = gathered.movedim(-2, 0).flatten(1)
            order = place.argsort()  # that of the stream, on every rank
            self.times.observe(u[order], loss[order])
        self._seen.clear()
