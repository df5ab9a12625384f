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
        self._sums = torch.zeros(len(self.model.terms) + 1, device=self.device)  # and of samples

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """The averaged model's, with the same noise at every call."""
        if not len(batch["position"]):  # a rank's share of the last batch can be empty
            return
        bits = self.ema.model.bits(batch, self.validation_noise(batch))
        terms = [bits[name] for name in self.model.terms]
        self._sums += torch.stack((*terms, torch.ones_like(terms[0]))).sum(1)

    def on_validation_epoch_end(self) -> None:
        """The means over all processes; the loss is the sum of the terms."""
        *sums, count = self.trainer.strategy.reduce(self._sums, reduce_op="sum")
        means = {name: term / count for name, term in zip(self.model.terms, sums, strict=True)}
        total = torch.stack([*means.values()]).sum()
        found = {"loss": total, "bits_per_dim": total} | means
        named = {f"validation/{name}": value for name, value in found.items()}
        self.log_dict(named, logger=False, sync_dist=True)  # equal on all ranks already
