"""How a GAN is trained and validated."""

from typing import Any

import torch
from torch import Tensor

from unnoise.data.source import Batch
from unnoise.models.gan import GAN, gradient_penalty, relativistic
from unnoise.training.module import GenerativeModule


class AdversarialModule(GenerativeModule):
    """Trains a generator against a discriminator; the average is the generator's.

    Both learn at once, from one loss whose gradient is, for each network, that of its own. So one
    optimizer holds both, and a training step is one optimizer step.
    ``gamma`` of the ``AdversarialRecipe`` weighs the gradient penalties R1 and R2.
    """

    def __init__(self, recipe: Any, config: dict[str, Any], rollbacks: int = 0) -> None:
        model, discriminator = GAN.of(vars(recipe), recipe.data.shape), recipe.discriminator
        super().__init__(model, recipe, config, rollbacks, helpers=(discriminator,))
        self.discriminator, self.gamma = discriminator, recipe.gamma

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """The sum of both losses, mean and for each sample (R3GAN, Algorithm 1)."""
        fake = self.model.generate(self.training_noise(batch, batch_idx))
        x = self.model.codec.encode(batch["image"]).requires_grad_()
        y = fake.detach().requires_grad_()
        of_real, of_fake = self.discriminator(x), self.discriminator(y)
        loss = relativistic(of_real, of_fake)
        for scores, at in ((of_real, x), (of_fake, y)):
            loss = loss + gradient_penalty(scores, at, self.gamma)
        weights = {name: p.detach() for name, p in self.discriminator.named_parameters()}
        of_made = torch.func.functional_call(self.discriminator, weights, (fake,))
        loss = loss + relativistic(of_made, of_real.detach())
        return {"loss": self.recorded(loss.mean()), "per_sample": loss.detach()}

    def on_validation_epoch_start(self) -> None:
        """Start from nothing."""
        self._sums = torch.zeros(2, device=self.device)  # of losses, and of samples

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """The averaged generator's loss, on the same latents at every call."""
        if not len(batch["position"]):  # a rank's share of the last batch can be empty
            return
        fake = self.ema.model.generate(self.validation_noise(batch))
        real = self.model.codec.encode(batch["image"])
        loss = relativistic(self.discriminator(fake), self.discriminator(real))
        self._sums += torch.stack((loss.sum(), torch.ones_like(loss).sum()))

    def on_validation_epoch_end(self) -> None:
        """The mean over all processes."""
        total, count = self.trainer.strategy.reduce(self._sums, reduce_op="sum")
        self.log("validation/loss", total / count, logger=False, sync_dist=True)
