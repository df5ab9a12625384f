"""The diffusion model: what is trained, averaged, saved and drawn from."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from unnoise.diffusion.denoiser import Denoise, Denoised, Denoiser, Prediction
from unnoise.diffusion.guidance import Guidance, extrapolated
from unnoise.diffusion.noise_level import NoiseLevel
from unnoise.diffusion.objectives import Loss, Objective
from unnoise.diffusion.random import Noise
from unnoise.diffusion.samplers import Sampler, Watch
from unnoise.diffusion.schedules import NoiseSchedule
from unnoise.diffusion.times import TimeSampler
from unnoise.networks.conditioning import Condition, Conditioner
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
        check_prediction(denoiser.prediction, schedule)
        self.denoiser, self.conditioner = denoiser, conditioner
        self.schedule, self.image_shape = schedule, tuple(image_shape)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def loss(
        self,
        objective: Objective,
        batch: Mapping[str, Any],
        noise: Noise,
        times: TimeSampler,
        drop: float = 0.0,
    ) -> Loss:
        """The objective on a batch with "image", each condition dropped with probability drop."""
        x0 = to_signal(batch["image"])
        condition = None
        if self.conditioner is not None:
            condition = self.conditioner(batch, keep=noise.uniform("drop") >= drop)
        u, weight = times.draw(noise)
        return Loss(objective(self.denoiser, self.schedule, x0, u, condition, noise), u, weight)

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
        if batch is None and self.conditioner is not None:
            batch = self.conditioner.examples(noise.ids)
        denoise = self.guided(batch, len(noise.ids), sampler.guidance)
        return sampler(denoise, self.schedule, self.image_shape, noise, watch)

    def bound(self, condition: Condition | None) -> Denoise:
        """The denoiser under one condition, as samplers want it."""

        def denoise(x_t: Tensor, level: NoiseLevel) -> Denoised:
            guess: Denoised = self.denoiser(x_t, level, condition)
            return guess

        return denoise

    def guided(self, batch: Mapping[str, Any] | None, n: int, guidance: Guidance) -> Denoise:
        """Classifier-free guidance towards what ``batch`` asks for, both branches at one go."""
        if self.conditioner is None or batch is None:
            return self.bound(None)
        kept = torch.ones(n, dtype=torch.bool, device=self.device)
        condition: Condition = self.conditioner(batch, kept)
        both = condition.joined(self.conditioner(batch, ~kept))

        def pair(x_t: Tensor, level: NoiseLevel) -> tuple[Denoised, Denoised]:
            together = self.denoiser(torch.cat((x_t, x_t)), level, both)
            n = len(x_t)
            return together.rows(slice(None, n)), together.rows(slice(n, None))

        return extrapolated(self.bound(condition), pair, guidance)


def check_prediction(prediction: Prediction, schedule: NoiseSchedule) -> None:
    """Whether the prediction makes sense at the noisiest level, where sampling starts.

    Raises:
        ValueError: it divides by alpha = 0 there.
    """
    noisiest = schedule.grid(1)[0]
    if not all(bool(c.isfinite()) for c in prediction.coefficients(noisiest.alpha, noisiest.sigma)):
        raise ValueError(
            f"{type(prediction).__name__} cannot be used with this schedule: at its last level "
            "nothing is left of the picture (alpha = 0), so that the noise there says nothing "
            "about it; use v, x0 or flow"
        )
