"""Bits/dim of validation pictures during training."""

from typing import Annotated, Any

import torch
from lightning import Trainer
from pydantic import Field

from unnoise.config.numbers import Count
from unnoise.data.stream import split_loader
from unnoise.diffusion.noise import Noise
from unnoise.diffusion.schedules import precise
from unnoise.training.callbacks.measurement import Measurement
from unnoise.training.module import GenerativeModule


class BitsPerDim(Measurement):
    """The variational bound on −log2 p of validation pictures, in all and by term.

    Uses the first ``count`` pictures, ``batch_size`` at a time on each process, in float32 whatever
    the precision of training. It takes ``steps`` network evaluations per picture; None takes all
    levels of the schedule: the bound of the paper (DDPM eq. 5, Nichol & Dhariwal 2021). The noise
    is that of ``unnoise-evaluate measure=likelihood`` with the run's seed.
    """

    seconds, needs_levels = "validation/bits_per_dim_seconds", True
    needs_pixels = True

    def __init__(
        self,
        every: Count = 5000,
        count: Count = 64,
        steps: Annotated[int, Field(ge=2)] | None = None,
        batch_size: Count = 64,
    ) -> None:
        super().__init__(every)
        self.count, self.steps, self.batch_size = count, steps, batch_size

    def measure(self, trainer: Trainer, module: GenerativeModule) -> dict[str, float]:
        """validation/bits_per_dim = L_T + Σ L_{t−1} + L_0, and the three."""
        model, ranks, data = module.ema.model, trainer.world_size, trainer.datamodule  # type: ignore[attr-defined]
        sums = precise(torch.zeros(4, device=module.device))  # of the terms; of pictures
        each = {"batch_size": self.batch_size * ranks, "rank": trainer.global_rank, "ranks": ranks}
        for batch in split_loader(data.validation_split, limit=self.count, **each):
            if len(batch["position"]):  # a rank's share of the last batch can be empty
                here = module.transfer_batch_to_device(batch, module.device, 0)
                noise = Noise(module.seed, here["position"])
                terms = model.variational_bound(here, noise, self.steps)
                parts = (terms.prior, terms.steps.sum(1), terms.decoder, torch.ones_like(noise.ids))
                sums += torch.stack([precise(part).sum() for part in parts])
        reduced: Any = trainer.strategy.reduce(sums, reduce_op="sum")
        *terms_sum, pictures = reduced.tolist()
        means = [term / pictures for term in terms_sum]
        names = ("", "_prior", "_steps", "_decoder")
        values = zip(names, (sum(means), *means), strict=True)
        return {f"validation/bits_per_dim{name}": value for name, value in values}
