"""Metrics as torchmetrics has them: over batches, over processes, and over groups of pictures."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from unnoise.evaluation import neighbours
from unnoise.evaluation.distances import frechet_distance, kernel_distance, moments_of_sums
from unnoise.evaluation.extractors.base import Features
from unnoise.evaluation.neighbours import K_DENSITY, Surroundings
from unnoise.evaluation.reference import Reference

Values = dict[str, Tensor]
Compare = Callable[[Tensor, Tensor], Tensor]
"""Pooled features of drawn pictures (N, D) and of real ones (M, D) to a number, ()."""


class SampleMetric(Metric, ABC):
    """Metrics of drawn pictures, whose features come in batches.

    A process without pictures takes part in ``compute`` as well.
    """

    full_state_update = False

    def __init__(self, reference: Reference) -> None:
        super().__init__()
        self.reference = reference

    def update(self, features: Features) -> None:
        """Take in the features of some pictures, maybe none.

        Raises:
            ValueError: they are NaN or infinite, or of other dimensions than the reference's.
        """
        for kind in Features._fields:
            part, real = getattr(features, kind), getattr(self.reference.features, kind)
            if part.shape[1:] != real.shape[1:]:
                raise ValueError(
                    f"{kind} features of drawn pictures are {tuple(part.shape[1:])}, those of the "
                    f"reference {tuple(real.shape[1:])}: they are not of one extractor"
                )
            if not part.isfinite().all():
                raise ValueError(f"{kind} features of drawn pictures are NaN or infinite")
        self._add(Features(*(part.to(self.device) for part in features)))

    def compute(self) -> Values:
        """The values by name, scalars in float64."""
        return self._values()

    def held_out(self, features: Features, groups: int) -> list[Values]:
        """The values of all pictures, then of all but those of each group, i mod groups.

        What was taken in before is forgotten; other processes have no part in it.
        """
        parts = []
        for group in range(groups):
            self.reset()
            self.update(Features(*(part[group::groups] for part in features)))
            parts.append(self.metric_state)
        values = []
        for some in [parts, *(parts[:group] + parts[group + 1 :] for group in range(groups))]:
            self.reset()
            for part in some:
                self.merge_state(part)
            values.append(self._values())
        return values

    @abstractmethod
    def _add(self, features: Features) -> None:
        """Take the features into the states."""

    @abstractmethod
    def _values(self) -> Values:
        """The values of the states that this process has."""


class Frechet(SampleMetric):
    """Fréchet distance of the normal distributions with the moments of two sets of features.

    FID on pooled features of Inception (Heusel et al. 2017), sFID on spatial ones (Nash et al.
    2021). It streams: n, Σx and Σx·xᵀ are kept, in float64 and off the reference's mean.
    """

    shift: Tensor
    n: Tensor
    total: Tensor
    outer: Tensor

    def __init__(self, name: str, part: str, reference: Reference) -> None:
        super().__init__(reference)
        self.name, self.part, self.moments = name, part, getattr(reference, part)
        self.register_buffer("shift", self.moments.mean, persistent=False)
        self.add_state("n", torch.tensor(0), "sum")
        self.add_state("total", torch.zeros_like(self.moments.mean), "sum")
        self.add_state("outer", torch.zeros_like(self.moments.covariance), "sum")

    def _add(self, features: Features) -> None:
        x = getattr(features, self.part).double() - self.shift
        self.n = self.n + len(x)
        self.total = self.total + x.sum(0)
        self.outer = self.outer + x.T @ x

    def _values(self) -> Values:
        sums = (self.total.cpu(), self.outer.cpu(), self.shift.cpu())
        drawn = moments_of_sums(int(self.n), *sums)
        return {self.name: frechet_distance(drawn, self.moments).to(self.device)}


class InceptionScore(SampleMetric):
    """exp E_x KL(p(y|x) ‖ p(y)) by the logits of K classes, in [1, K] (Salimans et al. 2016).

    Of all pictures at once, not in splits. It streams: n, Σp and Σ p·log p are kept, in float64.
    """

    n: Tensor
    total: Tensor
    negentropy: Tensor

    def __init__(self, name: str, reference: Reference) -> None:
        super().__init__(reference)
        self.name = name
        classes = reference.features.logits.shape[1]
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


class Neighbourhood(SampleMetric):
    """Where drawn pictures lie among real ones; it streams.

    precision: the share of drawn pictures in the manifold of the real ones (k = 3, Kynkäänniemi et
    al. 2019). density: in how many balls about real pictures a drawn one lies, over k = 5, which
    may exceed 1; coverage: the share of real pictures with a drawn one in their ball (k = 5, Naeem
    et al. 2020). memorised: the share of drawn pictures that lie nearer to their nearest real one
    than any other real one does (1 − authenticity, Alaa et al. 2022). Duplicates of that real one
    do not count as others, so a copy of a picture that occurs twice counts as well. Chance alone
    makes new pictures fall so near at times, so compare it with that of real pictures that are not
    in the reference.

    Args:
        names: which of these four, and the names their values get.
        reference: of more than five pictures; its ``manifold`` says what neighbours are sought by.
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
        super().__init__(reference)
        self.names, self.part = names, reference.manifold.part
        self.register_buffer("real", reference.neighbours, persistent=False)
        for key, distance in reference.surroundings._asdict().items():
            self.register_buffer(key, distance, persistent=False)
        for key in ("n", "inside", "balls", "copied"):
            self.add_state(key, torch.tensor(0), "sum")
        self.add_state("closest", torch.full((len(self.real),), torch.inf), "min")

    def _add(self, features: Features) -> None:
        around = Surroundings(self.third, self.fifth, self.other)
        x: Tensor = getattr(features, self.part)
        found = neighbours.hits(x, self.real, around)
        self.n = self.n + len(x)
        self.inside = self.inside + found.inside.sum()
        self.balls = self.balls + found.balls.sum()
        self.copied = self.copied + found.copied.sum()
        self.closest = self.closest.minimum(found.closest)

    def _values(self) -> Values:
        if self.n < 1:
            raise ValueError(f"{next(iter(self.names.values()))} takes a picture, there are none")
        n = self.n.double()
        found = {
            "precision": self.inside / n,
            "density": self.balls / (K_DENSITY * n),
            "coverage": (self.closest <= self.fifth).double().mean(),
            "memorised": self.copied / n,
        }
        return {name: found[kind] for kind, name in self.names.items()}


class Stored(SampleMetric, ABC):
    """A metric that needs a part of all features at once: its memory grows with the pictures."""

    real: Tensor
    kept: list[Tensor]

    def __init__(self, name: str, reference: Reference, part: str = "pooled") -> None:
        super().__init__(reference)
        self.name, self.part = name, part
        self.register_buffer("real", getattr(reference.features, part), persistent=False)
        self.add_state("kept", [], "cat")
        self.reset()

    def reset(self) -> None:
        """Forget all pictures; what is left, (0, D), can be joined to what other processes have."""
        super().reset()
        self.kept.append(self.real[:0])

    def held_out(self, features: Features, groups: int) -> list[Values]:
        """The values of all pictures, then of all but those of each group, i mod groups."""
        self.reset()
        self.update(features)
        return [{self.name: value} for value in self._kept(torch.cat(self.kept), groups)]

    def _add(self, features: Features) -> None:
        self.kept.append(getattr(features, self.part))

    def _values(self) -> Values:
        return {self.name: self._kept(dim_zero_cat(self.kept), 0)[0]}

    @abstractmethod
    def _kept(self, x: Tensor, groups: int) -> Tensor:
        """The value of features (N, D), then of those without each group, (1 + groups,)."""


class Kernel(Stored):
    """Kernel distance; KID on pooled features of Inception (Bińkowski et al. 2018).

    Of all pictures at once, not of random subsets of them.
    """

    likeness: Tensor

    def __init__(self, name: str, reference: Reference) -> None:
        super().__init__(name, reference)
        self.register_buffer("likeness", reference.likeness, persistent=False)

    def _kept(self, x: Tensor, groups: int) -> Tensor:
        weights = neighbours.kept(len(x), groups).to(x.device).T.double()
        return kernel_distance(x.double(), self.real.double(), weights, self.likeness)


class Recall(Stored):
    """The share of real pictures in the manifold of drawn ones (k = 3, Kynkäänniemi et al. 2019).

    That is the union of balls about each that reach to its third nearest. Neighbours are sought by
    what the reference's ``manifold`` says.
    """

    def __init__(self, name: str, reference: Reference) -> None:
        super().__init__(name, reference, reference.manifold.part)
        self.register_buffer("real", reference.neighbours, persistent=False)

    def _kept(self, x: Tensor, groups: int) -> Tensor:
        return neighbours.covered(self.real, x, neighbours.radii(x, groups))


class Compared(Stored):
    """What a function makes of all features, drawn and real."""

    def __init__(self, name: str, compare: Compare, reference: Reference) -> None:
        super().__init__(name, reference)
        self.compare = compare

    def _kept(self, x: Tensor, groups: int) -> Tensor:
        keep = neighbours.kept(len(x), groups).to(x.device)
        return torch.stack([self.compare(x[rows], self.real).double() for rows in keep])
