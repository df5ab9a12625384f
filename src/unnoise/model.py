"""The diffusion model: what is trained, averaged, saved and drawn from."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from unnoise.diffusion.denoiser import Denoised, Denoiser
from unnoise.diffusion.noise_level import NoiseLevel
from unnoise.diffusion.objectives import Loss, Objective
from unnoise.diffusion.random import Noise
from unnoise.diffusion.samplers import Sampler, Watch
from unnoise.diffusion.schedules import NoiseSchedule
from unnoise.networks.conditioning import Conditioner
from unnoise.pictures import to_signal


class DiffusionModel(nn.Module):
    """A denoiser with its schedule and, where pictures are asked for by something, a conditioner.

    Pictures are uint8 (B, C, H, W) outside and float32 in [−1, 1] inside.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        schedule: NoiseSchedule,
        image_shape: Sequence[int],
        conditioner: Conditioner | None = None,
    ) -> None:
        super().__init__()
        self.denoiser, self.conditioner = denoiser, conditioner
        self.schedule, self.image_shape = schedule, tuple(image_shape)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def loss(
        self, objective: Objective, batch: Mapping[str, Any], noise: Noise, drop: float = 0.0
    ) -> Loss:
        """The objective on a batch with "image", each condition dropped with probability drop."""
        x0 = to_signal(batch["image"])
        condition = None
        if self.conditioner is not None:
            condition = self.conditioner(batch, keep=noise.uniform("drop") >= drop)
        return objective(self.denoiser, self.schedule, x0, condition, noise)

    @torch.inference_mode()
    def sample(
        self,
        sampler: Sampler,
        noise: Noise,
        batch: Mapping[str, Any] | None = None,
        watch: Watch | None = None,
    ) -> Tensor:
        """One picture for each id of ``noise``: (B, C, H, W) in about [−1, 1].

        ``batch`` holds what the conditioner reads; without it, its examples are drawn.
        """
        condition = None
        if self.conditioner is not None:
            asked = self.conditioner.examples(noise.ids) if batch is None else batch
            condition = self.conditioner(asked, torch.ones_like(noise.ids, dtype=torch.bool))

        def denoise(x: Tensor, level: NoiseLevel) -> Denoised:
            guess: Denoised = self.denoiser(x, level, condition)
            return guess

        return sampler(denoise, self.schedule, self.image_shape, noise, watch)
