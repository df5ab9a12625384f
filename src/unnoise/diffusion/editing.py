"""Editing: sampling that starts from given pictures, or keeps parts of them.

An edit is called in place of the sampler, which it uses. Pictures are x0, float (N, C, H, W) in
[−1, 1]; sounds (N, C, L) and videos (N, C, T, H, W) are edited alike. The sample with id k belongs
to picture k mod N.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from unnoise.config.numbers import Count
from unnoise.diffusion.denoiser import Denoise, thresholded
from unnoise.diffusion.levels import NoiseLevel, diffuse, forward_step, match
from unnoise.diffusion.noise import Noise
from unnoise.diffusion.samplers import (
    DDIM,
    AdaptiveODE,
    Euler,
    Sampler,
    Stepper,
    Walk,
    Watch,
    sample,
    towards,
)
from unnoise.diffusion.schedules import NoiseSchedule, precise

OPPOSITE = -0.9999  # cosine of two noises with no unique great circle between them


class Edit:
    """A way to sample that uses given pictures.

    ``shape`` (C, …) is that of what it draws, ``strength`` the share of the sampler's steps that it
    takes. A subclass changes the sampler's stepper, or where it starts, or replaces ``__call__``.
    """

    shape: tuple[int, ...]
    strength: float = 1.0

    def __call__(
        self,
        sampler: Sampler,
        denoise: Denoise,
        schedule: NoiseSchedule,
        noise: Noise,
        watch: Watch | None = None,
    ) -> Tensor:
        """One sample for each id of ``noise``: (B, C, …). ``denoise`` includes guidance.

        Raises:
            ValueError: the sampler cannot be used for this edit.
        """
        if isinstance(sampler.stepper, AdaptiveODE):
            raise ValueError(
                "adaptive_ode chooses its own levels, but an edit needs those of the schedule: "
                "use another sampler, such as heun or dpm_solver"
            )
        sampler = replace(sampler, stepper=self.stepper(sampler.stepper, noise.ids))
        start = self.start(noise.ids)
        return sampler(denoise, schedule, self.shape, noise, watch, start, self.strength)

    def stepper(self, stepper: Stepper, ids: Tensor) -> Stepper:
        """What takes the steps of samples ``ids`` (B,) in place of the sampler's."""
        return stepper

    def start(self, ids: Tensor) -> Tensor | None:
        """Pictures (B, C, …) to noise and start from, or None."""
        return None

    def finished(self, data: Tensor, ids: Tensor) -> Tensor:
        """What becomes of samples ``ids`` (B,) once they are data again, (B, …) uint8."""
        return data


class Inpainting(Stepper):
    """A stepper for pictures that are known where ``mask`` is False.

    After each step the known part is replaced by the known picture, noised to the level reached
    (Song et al. 2021, "Score-based generative modeling through SDEs", §5, appendix I.2). As the two
    parts then fit together badly, each step can be repeated ``resample`` times, with noise added in
    between (Lugmayr et al. 2022, RePaint, algorithm 1).

    Args:
        stepper: takes the steps.
        image: known pictures (B, C, …) in [−1, 1].
        mask: bool (B, 1, …), True where to paint.
        resample: r, how often each step is taken.
    """

    def __init__(self, stepper: Stepper, image: Tensor, mask: Tensor, resample: Count = 1) -> None:
        self.stepper, self.image, self.mask, self.resample = stepper, image, mask, resample
        self.order, self.evaluations = stepper.order, stepper.evaluations * resample

    def step(self, walk: Walk, x: Tensor, now: NoiseLevel, to: NoiseLevel) -> Tensor:
        """Step and replace, r times; at CLEAN the known part is the known picture exactly."""
        x_s = self._replaced(walk, x, now, to)
        for _ in range(self.resample - 1):
            mean, variance = forward_step(x_s, to, now)
            walk.memory = None
            x_s = self._replaced(walk, mean + variance.sqrt() * walk.noise(), now, to)
        return x_s

    def _replaced(self, walk: Walk, x: Tensor, now: NoiseLevel, to: NoiseLevel) -> Tensor:
        painted = self.stepper.step(walk, x, now, to)
        return torch.where(self.mask, painted, diffuse(self.image, walk.noise(), to))


class Inpaint(Edit):
    """Paint the region that ``mask`` marks, to match the rest of the picture; see Inpainting.

    Args:
        image: (N, C, …) in [−1, 1].
        mask: bool (N or 1, 1, …), True where to paint.
        resample: 1 is fast; with 10 or more the parts fit together.
        kept: where ``image`` is a latent, the data themselves (N, …) uint8 and their own mask,
            outside of which they are kept as they are.

    Raises:
        ValueError: wrong shapes, or a mask that marks nothing.
    """

    def __init__(
        self,
        image: Tensor,
        mask: Tensor,
        resample: Count = 1,
        kept: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        self.shape = _shape(image)
        wanted = (1, *image.shape[2:])
        if mask.dtype != torch.bool or mask.shape[1:] != wanted:
            raise ValueError(
                f"the mask must be bool (N, {', '.join(map(str, wanted))}), "
                f"not {mask.dtype} {tuple(mask.shape)}"
            )
        if not bool(mask.flatten(1).any(1).all()):
            raise ValueError("the mask marks nothing: white marks the region to paint")
        self.image, self.mask, self.resample, self.kept = image, mask, resample, kept

    def finished(self, data: Tensor, ids: Tensor) -> Tensor:
        """The data that were given, outside the mask."""
        if self.kept is None:
            return data
        given, mask = (in_turn(each, ids) for each in self.kept)
        return torch.where(mask, data, given)

    def stepper(self, stepper: Stepper, ids: Tensor) -> Stepper:
        """Inpainting by the stepper."""
        image, mask = in_turn(self.image, ids), in_turn(self.mask, ids)
        return Inpainting(stepper, image, mask, self.resample)


class ImageToImage(Edit):
    """Noise a picture part of the way and sample from there (Meng et al. 2022, SDEdit, §3).

    Args:
        image: (N, C, …) in [−1, 1].
        strength: share of the steps that is taken, at least one step; 1 ignores the picture.

    Raises:
        ValueError: the image has another shape.
    """

    def __init__(self, image: Tensor, strength: Annotated[float, Field(gt=0, le=1)]) -> None:
        self.shape = _shape(image)
        self.image, self.strength = image, strength

    def start(self, ids: Tensor) -> Tensor:
        """The pictures."""
        return in_turn(self.image, ids)


class Interpolate(Edit):
    """``count`` pictures between two, along a great circle of noise (Song et al. 2021, DDIM, §5.3).

    Both are encoded, and every point between their noises is decoded. Each picture takes three
    walks, since it may have its own condition, with which both ends are encoded.

    Args:
        first, second: (1, C, …) in [−1, 1].
        count: number of pictures, including both ends; at least 2.

    Raises:
        ValueError: wrong shapes.
    """

    def __init__(self, first: Tensor, second: Tensor, count: Annotated[int, Field(ge=2)]) -> None:
        self.shape = _shape(first)
        if first.shape != second.shape or len(first) != 1:
            raise ValueError(
                f"the ends must be one picture each and of one shape, not {tuple(first.shape)} "
                f"and {tuple(second.shape)}"
            )
        self.ends, self.count = torch.cat((first, second)), count

    def __call__(
        self,
        sampler: Sampler,
        denoise: Denoise,
        schedule: NoiseSchedule,
        noise: Noise,
        watch: Watch | None = None,
    ) -> Tensor:
        """Encode both ends with each picture's own condition, interpolate, decode.

        Raises:
            ValueError: the sampler is not deterministic DDIM, whose steps can be reversed; or the
                two noises are opposite.
        """
        stepper = sampler.stepper
        if not isinstance(stepper, Euler) and not (isinstance(stepper, DDIM) and stepper.eta == 0):
            raise ValueError(
                "interpolation goes to noise and back by the same steps: use the sampler ddim "
                "with eta 0"
            )
        levels = schedule.grid(sampler.steps, sampler.spacing)
        if sampler.threshold is not None:
            denoise = thresholded(denoise, sampler.threshold)
        n = len(noise.ids)
        first, second = (
            encode(denoise, levels, end.expand(n, *self.shape))
            for end in self.ends.to(noise.ids.device)
        )
        share = precise(noise.ids % self.count) / (self.count - 1)
        walk = Walk(denoise, schedule, noise.normals("sampler", self.shape))
        return sample(walk, stepper, levels, slerp(first, second, share), watch)


def encode(denoise: Denoise, levels: Sequence[NoiseLevel], x0: Tensor) -> Tensor:
    """The noise from which deterministic DDIM samples x0 (B, …): its steps in reverse.

    ``levels`` fall to CLEAN, as in a grid. The steps are Euler's, x_t = alpha_t·x0 + sigma_t·ε with
    the estimates at the level before (Song et al. 2021, DDIM, §4.3 and 5.4); for CLEAN the ε of the
    level above it is used.
    """
    x, at = x0, levels[-2]
    for to in reversed(levels[:-1]):
        denoised = denoise(x, at)
        x = towards(denoised._replace(x0=x0) if at is to else denoised, to)
        at = to
    return x


def slerp(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    """sin((1−w)θ)/sin θ·a + sin(wθ)/sin θ·b, θ the angle between a and b (B, …), w = share (B,).

    Keeps the norm if a and b have the same norm, as noise nearly does (Shoemake 1985).

    Raises:
        ValueError: a and b are opposite, so no great circle is the shortest.
    """
    flat_a, flat_b = precise(a.flatten(1)), precise(b.flatten(1))
    cosine = torch.cosine_similarity(flat_a, flat_b, dim=1).clamp(-1, 1)
    if bool((cosine < OPPOSITE).any()):
        raise ValueError(
            "the noises of the two pictures are opposite: no great circle between them is the "
            "shortest, so take another pair"
        )
    turns = cosine.arccos() / torch.pi
    w_a, w_b = ((w * torch.sinc(w * turns) / torch.sinc(turns)) for w in (1 - share, share))
    return match(w_a, a) * a + match(w_b, b) * b


def _shape(image: Tensor) -> tuple[int, ...]:
    if image.ndim < 3 or not image.is_floating_point():
        raise ValueError(
            f"images must be float (N, C, …) in [−1, 1], not {image.dtype} {tuple(image.shape)}"
        )
    return tuple(image.shape[1:])


def in_turn(values: Tensor, ids: Tensor) -> Tensor:
    """values[k mod N] for each id k."""
    values = values.to(ids.device)
    return values[ids % len(values)]
