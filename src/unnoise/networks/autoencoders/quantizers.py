"""Quantizers: latents of real numbers to the nearest of finitely many, with a gradient.

Shapes: B pictures of h × w places with D numbers each; K codes.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from unnoise.config.numbers import Count
from unnoise.diffusion.noise import Noise
from unnoise.networks.autoencoders.convolutional import Latent

DEAD, NEW = 0.03, 0.1  # below which usage a code is revived, and with which


def straight_through(z: Tensor, quantized: Tensor) -> Tensor:
    """The quantized value with the gradient of z (Bengio et al. 2013; van den Oord et al. 2017)."""
    return z + (quantized - z).detach()


class Quantizer(nn.Module, ABC):
    """(B, D, h, w) to the nearest codes; ``width`` is D, ``size`` K."""

    width: int
    size: int
    bounded = False

    @abstractmethod
    def forward(self, z: Tensor) -> Latent:
        """The quantized latent, whose gradient goes straight through to z."""

    @abstractmethod
    def vectors_of(self, codes: Tensor) -> Tensor:
        """Codes (B, h, w) as the latent that stands for them, (B, D, h, w)."""


class Codebook(Quantizer):
    """The nearest of K learned vectors (van den Oord, Vinyals & Kavukcuoglu 2017, VQ-VAE).

    The vectors are no parameters: each is the moving average of the latents that it was nearest to
    (appendix A.1), with weight ``decay`` for the past. ``usage`` is the average of how often, where
    1 is the mean of all codes; a code whose usage falls below 0.03 is dead, and begins anew as a
    latent of the last step, with usage 0.1 (Dhariwal et al. 2020, §3.1, "random restarts"). At
    first all are dead.

    Args:
        size: K.
        width: D.
        commitment: β, the weight of Σ‖z − e‖², which keeps latents near their vectors.
        decay: of the averages, a step.
    """

    vectors: Tensor
    usage: Tensor

    def __init__(
        self,
        size: Count,
        width: Count,
        commitment: Annotated[float, Field(ge=0)] = 0.25,
        decay: Annotated[float, Field(ge=0, lt=1)] = 0.99,
    ) -> None:
        super().__init__()
        self.size, self.width, self.commitment, self.decay = size, width, commitment, decay
        self.register_buffer("vectors", torch.randn(size, width))
        self.register_buffer("usage", torch.zeros(size))

    def forward(self, z: Tensor) -> Latent:
        """The vectors nearest to z; the penalty is β·Σ‖z − sg[e]‖² of each picture."""
        z = z.float()
        with torch.autocast(z.device.type, enabled=False), torch.no_grad():
            closeness = _rows(z) @ self.vectors.T - 0.5 * self.vectors.square().sum(1)
            codes = closeness.argmax(1).reshape(len(z), *z.shape[2:])
        found = self.vectors_of(codes)
        penalty = self.commitment * (z - found).square().flatten(1).sum(1)
        return Latent(straight_through(z, found), penalty, z, codes)

    def vectors_of(self, codes: Tensor) -> Tensor:
        """Look them up."""
        return F.embedding(codes, self.vectors).movedim(-1, 1)

    def statistics(self, latent: Latent) -> Tensor:
        """What ``learn`` needs of a batch, to be summed over all of a step.

        (K, D + 1): of each code the sum of the latents nearest to it, and their number.
        """
        assert latent.codes is not None
        rows = _rows(latent.encoded.detach())
        rows = torch.cat((rows, torch.ones_like(rows[:, :1])), 1)
        codes = torch.arange(self.size, device=rows.device)
        members = (codes[:, None] == latent.codes.flatten()).to(rows)
        with torch.autocast(rows.device.type, enabled=False):
            return members @ rows  # scattered sums would be in another order each time

    def candidates(self, latent: Latent, noise: Noise) -> Tensor:
        """One latent of each picture, at a random place: (B, D). Dead codes become these."""
        places = latent.encoded.detach().flatten(2)
        at = (noise.uniform("candidate") * places.shape[2]).long()
        return places[torch.arange(len(at), device=at.device), :, at]

    @torch.no_grad()
    def learn(self, statistics: Tensor, candidates: Tensor) -> None:
        """Follow the latents of a step, and revive the codes least used, one for each candidate.

        With usage u, mean m of the past and n latents of sum s (n in units of the mean of all
        codes): u ← d·u + (1 − d)·n, then m ← m + (1 − d)·(s − n·m)/u.
        """
        part = statistics * (self.size / statistics[:, -1].sum())
        sums, counts = part[:, :-1], part[:, -1]
        self.usage.lerp_(counts, 1 - self.decay)
        change = (1 - self.decay) * (sums - counts[:, None] * self.vectors)
        self.vectors += change / self.usage.clamp(min=1e-12)[:, None]
        usage, least = self.usage.sort(stable=True)
        n = min(len(candidates), self.size)
        dead = usage[:n] < DEAD
        self.vectors[least[:n]] = torch.where(
            dead[:, None], candidates[:n], self.vectors[least[:n]]
        )
        self.usage[least[:n]] = torch.where(dead, NEW, usage[:n])


class FSQ(Quantizer):
    """Each of D numbers rounded to one of few levels in [−1, 1]: no parameters, no loss, no codes
    that die (Mentzer et al. 2023, "Finite Scalar Quantization: VQ-VAE Made Simple").

    Channel i is squashed by tanh and has the values k / ⌊L_i / 2⌋; an even number of levels has one
    more below 0 than above. Code Σ_i digit_i·Π_{j<i} L_j numbers them, K = Π L_i (eq. 1, A.1).

    Args:
        levels: L_i, at least 3; [8, 5, 5, 5] makes 1000 codes, [7, 5, 5, 5, 5] makes 4375.
    """

    bounded = True

    def __init__(self, levels: Sequence[Annotated[int, Field(ge=3)]] = (8, 5, 5, 5)) -> None:
        super().__init__()
        self.levels, self.width, self.size = tuple(levels), len(levels), math.prod(levels)
        if not levels:
            raise ValueError("levels is empty: give one number a channel")

    def forward(self, z: Tensor) -> Latent:
        """The nearest levels; there is no penalty."""
        z = z.float()
        levels = self._column(self.levels, z)
        half = (levels - 1) * (1 - 1e-3) / 2  # a little less, so that rounding stays inside
        offset = torch.where(levels % 2 == 0, 0.5, 0.0)
        squashed = (z + (offset / half).atanh()).tanh() * half - offset
        rounded = straight_through(squashed, squashed.round())
        middle = levels.div(2, rounding_mode="floor")
        digits = (rounded.detach() + middle).long()
        bases = self._column([math.prod(self.levels[:i]) for i in range(self.width)], digits)
        return Latent(rounded / middle, z.new_zeros(len(z)), z, (digits * bases).sum(1))

    def vectors_of(self, codes: Tensor) -> Tensor:
        """Digit by digit."""
        digits, rest = [], codes
        for level in self.levels:
            digits.append((rest % level - level // 2) / (level // 2))
            rest = rest.div(level, rounding_mode="floor")
        return torch.stack(digits, 1)

    @staticmethod
    def _column(numbers: Sequence[int], like: Tensor) -> Tensor:
        return torch.tensor(numbers, device=like.device, dtype=like.dtype)[:, None, None]


def _rows(z: Tensor) -> Tensor:
    """(B, D, h, w) as (B·h·w, D)."""
    return z.movedim(1, -1).flatten(0, -2)
