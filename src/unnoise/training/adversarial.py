"""How a GAN is trained and validated."""

import copy
from typing import Any

import torch
from torch import Tensor

from unnoise.data.source import Batch
from unnoise.diffusion.noise import Noise
from unnoise.models.gan import (
    GAN,
    Pairing,
    discriminator_loss,
    generator_loss,
    gradient_penalty,
)
from unnoise.networks.conditioning import Conditioner
from unnoise.training.module import GenerativeModule


class AdversarialModule(GenerativeModule):
    """Trains a generator against a discriminator; the average is the generator's.

    Both learn at once, from one loss whose gradient is, for each network, that of its own. So one
    optimizer holds both, and a training step is one optimizer step.
    ``gamma`` of the ``AdversarialRecipe`` weighs the gradient penalties R1 and R2.
    """

    def __init__(self, recipe: Any, config: dict[str, Any], rollbacks: int = 0) -> None:
        model, discriminator = GAN.of(vars(recipe), recipe.data.shape), recipe.discriminator
        judged = copy.deepcopy(recipe.conditioning)  # conditions as the discriminator sees them
        helpers = [each for each in (discriminator, judged) if each is not None]
        super().__init__(model, recipe, config, rollbacks, helpers=tuple(helpers))
        self.discriminator, self.gamma = discriminator, recipe.gamma
        self.judged: Conditioner | None = judged
        self.pairing: Pairing = recipe.pairing

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """The sum of both losses, mean and for each sample (R3GAN, Algorithm 1)."""
        fake = self._made(self.model, batch, self.training_noise(batch, batch_idx))
        vector = self._vector(batch)
        x = self.model.codec.encode(batch["image"]).requires_grad_()
        y = fake.detach().requires_grad_()
        of_real, of_fake = self.discriminator(x, vector), self.discriminator(y, vector)
        loss = discriminator_loss(self.pairing, of_real, of_fake)
        for scores, at in ((of_real, x), (of_fake, y)) if self.gamma else ():
            loss = loss + gradient_penalty(scores, at, self.gamma)
        weights = {name: p.detach() for name, p in self.discriminator.named_parameters()}
        given = (fake, None if vector is None else vector.detach())
        of_made = torch.func.functional_call(self.discriminator, weights, given)
        loss = loss + generator_loss(self.pairing, of_made, of_real.detach())
        return {"loss": self.recorded(loss.mean()), "per_sample": loss.detach()}

    def on_validation_epoch_start(self) -> None:
        """Start from nothing."""
        self._sums = torch.zeros(2, device=self.device)  # of losses, and of samples

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """The averaged generator's loss, on the same latents at every call."""
        if not len(batch["position"]):  # a rank's share of the last batch can be empty
            return
        fake = self._made(self.ema.model, batch, self.validation_noise(batch))
        real, vector = self.model.codec.encode(batch["image"]), self._vector(batch)
        scores = (self.discriminator(each, vector) for each in (fake, real))
        loss = generator_loss(self.pairing, *scores)
        self._sums += torch.stack((loss.sum(), torch.ones_like(loss).sum()))

    def on_validation_epoch_end(self) -> None:
        """The mean over all processes."""
        total, count = self.trainer.strategy.reduce(self._sums, reduce_op="sum")
        self.log("validation/loss", total / count, logger=False, sync_dist=True)

    def _made(self, model: GAN, batch: Batch, noise: Noise) -> Tensor:
        """A picture under the condition of each of the batch."""
        return model.generate(model.latents(noise), model.vector(batch, noise.ids))

    def _vector(self, batch: Batch) -> Tensor | None:
        """The conditions as the discriminator sees them."""
        if self.judged is None:
            return None
        keep = torch.ones_like(batch["position"], dtype=torch.bool)
        vector: Tensor | None = self.judged(batch, keep).vector
        return vector
