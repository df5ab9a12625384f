"""Metrics as torchmetrics has them: over batches, over processes, and over groups of pictures."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from unnoise.evaluation import neighbours
from unnoise.evaluation.distances import (
    Moments,
    frechet_distance,
    kernel_sums,
    kernel_sums_of_pairs,
    moments_of_sums,
)
from unnoise.evaluation.features import Features
from unnoise.evaluation.neighbours import K_DENSITY, Surroundings
from unnoise.evaluation.reference import Reference

Values = dict[str, Tensor]


class Quality(Metric, ABC):
    """Metrics of pictures whose features come in batches; ``compute`` names the values.

    States are summed, or concatenated, over processes by torchmetrics; a process that has no
    pictures takes part as well.
    """

    full_state_update = False

    def update(self, features: Features) -> None:
        """Take in the features of some pictures.

        Raises:
            ValueError: they hold NaN or infinity.
        """
        if not all(part.isfinite().all() for part in features):
            raise ValueError("features of drawn pictures are not finite")
        self._add(Features(*(part.to(self.device) for part in features)))

    def compute(self) -> Values:
        """The values by name, scalars in float64."""
        return self._values()

    @abstractmethod
    def _add(self, features: Features) -> None:
        """Take the features into the states."""

    @abstractmethod
    def _values(self) -> Values:
        """The values of the states as they are on this process."""

    def held_out(self, features: Features, groups: int) -> list[Values]:
        """The values of all pictures, then of all but those of each group."""
        parts = []
        for group in range(groups):
            self.reset()
            self._add(Features(*(part[group::groups] for part in features)))
            parts.append(self.metric_state)
        return [self._merged(parts)] + [
            self._merged(parts[:group] + parts[group + 1 :]) for group in range(groups)
        ]

    def _merged(self, parts: Sequence[dict[str, Any]]) -> Values:
        self.reset()
        for part in parts:
            self.merge_state(part)
        return self._values()


class Frechet(Quality):
    """Fréchet distance of the normal distributions with the features' moments.

    FID of pooled Inception features (Heusel et al. 2017), sFID of spatial ones (Nash et al. 2021).
    It streams: n, Σx and Σx·xᵀ are kept, in float64.
    """

    shift: Tensor
    n: Tensor
    total: Tensor
    outer: Tensor

    def __init__(self, name: str, part: str, real: Moments) -> None:
        super().__init__()
        self.name, self.part, self.real = name, part, real
        self.register_buffer("shift", real.mean, persistent=False)
        self.add_state("n", torch.tensor(0), "sum")
        self.add_state("total", torch.zeros_like(real.mean), "sum")
        self.add_state("outer", torch.zeros_like(real.covariance), "sum")

    def _add(self, features: Features) -> None:
        x = getattr(features, self.part).double() - self.shift
        self.n = self.n + len(x)
        self.total = self.total + x.sum(0)
        self.outer = self.outer + x.T @ x

    def _values(self) -> Values:
        n, total, outer, shift = int(self.n), self.total.cpu(), self.outer.cpu(), self.shift.cpu()
        drawn = moments_of_sums(n, total, outer, shift)
        return {self.name: frechet_distance(drawn, self.real).to(self.device)}


class Score(Quality):
    """exp E_x KL(p(y|x) ‖ p(y)) by the classes' logits (Salimans et al. 2016), in [1, K].

    Over all pictures at once, not in splits. It streams: n, Σp and Σ p·log p are kept, in float64.
    """

    n: Tensor
    total: Tensor
    negentropy: Tensor

    def __init__(self, name: str, classes: int) -> None:
        super().__init__()
        self.name = name
        self.add_state("n", torch.tensor(0), "sum")
        self.add_state("total", torch.zeros(classes, dtype=torch.float64), "sum")
        self.add_state("negentropy", torch.tensor(0.0, dtype=torch.float64), "sum")

    def _add(self, features: Features) -> None:
        p = features.logits.double().softmax(1)
        self.n = self.n + len(p)
        self.total = self.total + p.sum(0)
        self.negentropy = self.negentropy + p.xlogy(p).sum()

    def _values(self) -> Values:
        if self.n < 1:
            raise ValueError(f"{self.name} takes a picture or more, there are none")
        p = self.total / self.n
        return {self.name: (self.negentropy / self.n - p.xlogy(p).sum()).exp()}


class Stored(Quality, ABC):
    """A metric that needs all pooled features at once: memory grows with the pictures."""

    real: Tensor
    pooled: list[Tensor]

    def __init__(self, name: str, reference: Reference) -> None:
        super().__init__()
        self.name, self.reference = name, reference
        self.register_buffer("real", reference.features.pooled, persistent=False)
        self.add_state("pooled", [], "cat")
        self.reset()

    def reset(self) -> None:
        """Forget all pictures; none is a (0, D) tensor, which other processes' can be joined to."""
        super().reset()
        self.pooled.append(self.real[:0])

    def _add(self, features: Features) -> None:
        self.pooled.append(features.pooled)

    def _values(self) -> Values:
        return {self.name: self._held(dim_zero_cat(self.pooled), 0)[0]}

    def held_out(self, features: Features, groups: int) -> list[Values]:
        """The values of all pictures, then of all but those of each group."""
        return [{self.name: value} for value in self._held(features.pooled, groups)]

    @abstractmethod
    def _held(self, x: Tensor, groups: int) -> Tensor:
        """The value of features (N, D), then of those without each group, (1 + groups,)."""


class Kernel(Stored):
    """Unbiased estimate of the squared MMD with the kernel (x·y/D + 1)³ (Bińkowski et al. 2018).

    KID, of all pictures at once, not of random subsets. It may be slightly below 0.
    """

    def _held(self, x: Tensor, groups: int) -> Tensor:
        n, m = len(x), len(self.real)
        member = torch.ones(n, 1) if not groups else torch.eye(groups)[torch.arange(n) % groups]
        member = member.to(x.device).double()
        among = kernel_sums_of_pairs(x, member)
        across = kernel_sums(x, self.real, member, torch.ones(m, 1, device=x.device))[:, 0]
        kept = (
            torch.ones(1, 1)
            if not groups
            else torch.cat([torch.ones(1, groups), 1 - torch.eye(groups)])
        )
        kept = kept.to(member)
        left = kept @ member.sum(0)
        if left.min() < 2:
            raise ValueError(f"{self.name} takes 2 pictures or more, there are {int(left.min())}")
        pairs = ((kept @ among) * kept).sum(1)
        drawn, mixed = pairs / (left * (left - 1)), kept @ across / (left * m)
        return drawn - 2 * mixed + self.reference.likeness


class Recall(Stored):
    """The share of real pictures in the manifold of drawn ones (Kynkäänniemi et al. 2019).

    That is the union of balls about each, as large as the distance to its third nearest.
    """

    def _held(self, x: Tensor, groups: int) -> Tensor:
        return neighbours.covered(self.real, x, neighbours.radii(x, groups))


class Neighbourhood(Quality):
    """Where pictures lie among real ones; it streams.

    precision: the share of drawn pictures in the manifold of the real ones, k = 3 (Kynkäänniemi et
    al. 2019). density: in how many balls about real pictures a drawn one lies, over k = 5, which
    may exceed 1; coverage: the share of real pictures with a drawn one in their ball, k = 5 (Naeem
    et al. 2020). memorised: the share of drawn pictures that lie nearer to their nearest real one
    than that lies to any other real one (1 − authenticity, Alaa et al. 2022).
    """

    real: Tensor
    third: Tensor
    fifth: Tensor
    other: Tensor
    n: Tensor
    inside: Tensor
    balls: Tensor
    copied: Tensor
    closest: Tensor

    def __init__(self, names: dict[str, str], reference: Reference) -> None:
        super().__init__()
        self.names = names
        self.register_buffer("real", reference.features.pooled, persistent=False)
        for key, each in reference.surroundings._asdict().items():
            self.register_buffer(key, each, persistent=False)
        for key in ("n", "inside", "balls", "copied"):
            self.add_state(key, torch.tensor(0), "sum")
        self.add_state("closest", torch.full((len(self.real),), torch.inf), "min")

    def _add(self, features: Features) -> None:
        around = Surroundings(self.third, self.fifth, self.other)
        found = neighbours.hits(features.pooled, self.real, around)
        self.n = self.n + len(features.pooled)
        self.inside = self.inside + found.inside.sum()
        self.balls = self.balls + found.balls.sum()
        self.copied = self.copied + found.copied.sum()
        self.closest = self.closest.minimum(found.closest)

    def _values(self) -> Values:
        n = self.n.double()
        if n < 1:
            raise ValueError(f"{', '.join(self.names.values())} take a picture or more")
        found = {
            "precision": self.inside / n,
            "density": self.balls / n / K_DENSITY,
            "coverage": (self.closest <= self.fifth).double().mean(),
            "memorised": self.copied / n,
        }
        return {name: found[kind] for kind, name in self.names.items()}
