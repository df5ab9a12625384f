"""Samplers: how to go from noise to a sample, level by level.

A sampler is a short ``step`` that mirrors its formula; ``sample`` is the loop over the levels.
Everywhere x is at level t (``now``), and a step leads to the cleaner level s (``to``).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from unnoise.config.numbers import Count
from unnoise.diffusion.denoiser import Denoise, Threshold, thresholded
from unnoise.diffusion.guidance import Guidance
from unnoise.diffusion.levels import NoiseLevel, diffuse
from unnoise.diffusion.noise import Noise
from unnoise.diffusion.schedules import NoiseSchedule, Spacing

VERSION = 1
"""Of the samplers: to be raised where one draws other samples than before from the same noise."""
Watch = Callable[[Tensor, NoiseLevel], None]
"""Called with x and its level after every step."""


@dataclass
class Walk:
    """What all steps of one walk share.

    ``noise()`` returns new N(0, I) in the shape of x at each call. ``memory`` is what a step keeps
    for the next one; it is None before the first.
    """

    denoise: Denoise
    schedule: NoiseSchedule
    noise: Callable[[], Tensor]
    memory: Any = None


class Stepper(ABC):
    """One step of a sampler.

    ``order``: the final error falls as steps^−order, in x for the same noise if the walk is
    deterministic, else in the distribution; 0: more steps do not reduce it. ``evaluations``: calls
    of the denoiser in one step.
    """

    order: int = 1
    evaluations: int = 1

    @abstractmethod
    def step(self, walk: Walk, x: Tensor, now: NoiseLevel, to: NoiseLevel) -> Tensor:
        """x (B, …) taken from level ``now`` to level ``to``."""


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
    """How many of ``steps``, the last ones, a walk of ``strength`` in (0, 1] takes: 1 or more."""
    return max(1, round(strength * steps))


def steps_for(evaluations: int, stepper: Stepper) -> int:
    """The number of steps for a budget of network ``evaluations``, rounded up."""
    return -(-evaluations // stepper.evaluations)


@dataclass(frozen=True)
class Sampler:
    """A recipe for sampling: the kind of step, how many at which levels, guidance and threshold.

    ``steps`` None takes every level of the schedule; ``threshold`` is applied to each estimate of
    x0, after ``guidance``.
    """

    stepper: Stepper
    steps: Count | None = None
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
        """One sample for each id of ``noise``: (B, *shape) float32.

        A sample depends on its own id only, not on the batch. With ``start`` (B, *shape) the walk
        starts from these, noised, and takes the last ``strength`` share of the steps, at least one
        (Meng et al. 2022, SDEdit). ``denoise`` includes guidance.
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
