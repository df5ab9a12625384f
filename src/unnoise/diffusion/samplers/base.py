"""Samplers: how to walk the noise levels down to a picture.

A sampler is one short ``step`` that mirrors its formula; the loop over levels stands once, in
``sample``. Below, x is at level t (``now``) and the step leads to the cleaner level s (``to``).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from unnoise.diffusion.denoiser import Denoise, Threshold, thresholded
from unnoise.diffusion.guidance import Guidance
from unnoise.diffusion.levels import (
    NoiseLevel,
    diffuse,
)
from unnoise.diffusion.noise import Noise
from unnoise.diffusion.schedules import NoiseSchedule, Spacing

Watch = Callable[[Tensor, NoiseLevel], None]
"""Is shown x and its level after every step."""


@dataclass
class Walk:
    """What the steps of one sampling share.

    ``noise()`` gives fresh N(0, I) of the shape of x at each call. ``memory`` is what a step leaves
    for the next one; it is None before the first.
    """

    denoise: Denoise
    schedule: NoiseSchedule
    noise: Callable[[], Tensor]
    memory: Any = None


class Stepper(ABC):
    """One step of a sampler.

    ``order``: the error at the end falls as steps^−order, in x for the same noise where the walk
    is deterministic, else in the distribution; 0: not by more steps. ``evaluations`` of the
    denoiser a step takes.
    """

    order: int = 1
    evaluations: int = 1

    @abstractmethod
    def step(self, walk: Walk, x: Tensor, now: NoiseLevel, to: NoiseLevel) -> Tensor:
        """x (B, …), which is at ``now``, at ``to``."""


def sample(
    walk: Walk,
    stepper: Stepper,
    levels: Sequence[NoiseLevel],
    x: Tensor,
    watch: Watch | None = None,
) -> Tensor:
    """Walk x (B, …) from levels[0] to levels[-1]."""
    for now, to in pairwise(levels):
        x = stepper.step(walk, x, now, to)
        if watch is not None:
            watch(x, to)
    return x


def steps_taken(steps: int, strength: float) -> int:
    """How many of ``steps`` a walk of this strength in (0, 1] takes, the last ones: 1 or more."""
    return max(1, round(strength * steps))


def steps_for(evaluations: int, stepper: Stepper) -> int:
    """The steps that take ``evaluations`` of the network, rounded up."""
    return -(-evaluations // stepper.evaluations)


@dataclass(frozen=True)
class Sampler:
    """A recipe for pictures: the step, how many of them at which levels, and what bends the guess.

    ``steps`` None takes every level of the schedule; ``threshold`` is applied to each guessed
    picture, after ``guidance``.
    """

    stepper: Stepper
    steps: Annotated[int, Field(ge=1)] | None = None
    spacing: Spacing = "uniform"
    threshold: Threshold | None = None
    guidance: Guidance = field(default_factory=Guidance)

    @torch.inference_mode()
    def __call__(
        self,
        denoise: Denoise,
        schedule: NoiseSchedule,
        shape: Sequence[int],
        noise: Noise,
        watch: Watch | None = None,
        start: Tensor | None = None,
        strength: Annotated[float, Field(gt=0, le=1)] = 1.0,
    ) -> Tensor:
        """One picture (C, H, W) = shape for each id of ``noise``: (B, C, H, W) float32.

        A picture depends on its own id only, whatever else is in the batch. With ``start``
        (B, C, H, W) the walk begins at these pictures, noised, and goes the last ``strength`` share
        of the steps, at least one (Meng et al. 2022, SDEdit). ``denoise`` is guided already.
        """
        levels = schedule.grid(self.steps, self.spacing)
        if self.threshold is not None:
            denoise = thresholded(denoise, self.threshold)
        x = noise.normal("x_T", shape)
        if start is None:
            x = x * (levels[0].alpha ** 2 + levels[0].sigma ** 2).sqrt().float()
        else:
            levels = levels[-1 - steps_taken(len(levels) - 1, strength) :]
            x = diffuse(start, x, levels[0])
        walk = Walk(denoise, schedule, noise.normals("sampler", shape))
        return sample(walk, self.stepper, levels, x, watch)
