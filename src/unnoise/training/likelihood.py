"""How a model with a likelihood is trained and validated: a VAE, a flow."""

import torch
from torch import Tensor

from unnoise.data.source import Batch
from unnoise.training.module import GenerativeModule


class LikelihoodModule(GenerativeModule):
    """Trains a LikelihoodModel by its own loss; validation has its bits/dim and their terms."""

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """The mean loss, and that of each sample."""
        loss, terms = self.model.loss(batch, self.training_noise(batch, batch_idx))
        self.of_step = {name: term.detach().mean() for name, term in terms.items()}
        return {"loss": self.recorded(loss.mean()), "per_sample": loss.detach()}

    def on_validation_epoch_start(self) -> None:
        """Start from nothing."""
        self._sums: dict[str, Tensor] = {}
        self._count = torch.zeros((), device=self.device)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """The averaged model's, with the same noise at every call."""
        terms = self.ema.model.bits(batch, self.validation_noise(batch))
        for name, term in terms.items():
            self._sums[name] = self._sums.get(name, 0) + term.sum()
        self._count += len(batch["position"])

    def on_validation_epoch_end(self) -> None:
        """The means over all processes; the loss is the sum of the terms."""
        sums = torch.stack([*self._sums.values(), self._count])
        *terms, count = self.trainer.strategy.reduce(sums, reduce_op="sum")
        means = {name: term / count for name, term in zip(self._sums, terms, strict=True)}
        total = torch.stack([*means.values()]).sum()
        found = {"loss": total, "bits_per_dim": total} | means
        named = {f"validation/{name}": value for name, value in found.items()}
        self.log_dict(named, logger=False, sync_dist=True)  # equal on all ranks already
