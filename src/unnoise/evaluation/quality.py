"""How good drawn pictures are against a reference, with the uncertainty of each number."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from unnoise.evaluation import neighbours
from unnoise.evaluation.features import Features
from unnoise.evaluation.metrics import Frechet, Kernel, Neighbourhood, Quality, Recall, Score
from unnoise.evaluation.reference import Reference
from unnoise.evaluation.results import Estimate

KINDS = ("fd", "sfd", "kd", "score", "precision", "recall", "density", "coverage", "memorised")
"""What can be measured; a metric is named after one and the extractor, as in "fd_garments"."""


def quality(reference: Reference, names: Sequence[str] | None = None) -> MetricCollection:
    """The metrics of KINDS that are named (None: all), against a reference.

    ``update`` takes Features of drawn pictures; ``compute`` gives {"fd_garments": a scalar, …} in
    float64, over the pictures of all processes.

    Raises:
        ValueError: a name is not in KINDS, or the reference is too small for a metric.
    """
    chosen = KINDS if names is None else tuple(names)
    if unknown := [name for name in chosen if name not in KINDS]:
        raise ValueError(f"no metric is called {unknown[0]!r}; there are {', '.join(KINDS)}")
    full = {kind: f"{kind}_{reference.extractor}" for kind in KINDS if kind in chosen}
    makers: dict[str, Callable[[str], Quality]] = {
        "fd": lambda name: Frechet(name, "pooled", reference.pooled),
        "sfd": lambda name: Frechet(name, "spatial", reference.spatial),
        "kd": lambda name: Kernel(name, reference),
        "score": lambda name: Score(name, reference.features.logits.shape[1]),
        "recall": lambda name: Recall(name, reference),
    }
    metrics: dict[str, Metric | MetricCollection] = {
        name: makers[kind](name) for kind, name in full.items() if kind in makers
    }
    if among := {kind: name for kind, name in full.items() if kind not in makers}:
        metrics["neighbourhood"] = Neighbourhood(among, reference)
    return MetricCollection(metrics, compute_groups=False)


def estimates(
    reference: Reference,
    features: Features,
    names: Sequence[str] | None = None,
    groups: int = 10,
) -> dict[str, Estimate]:
    """The metrics of all pictures, with standard errors by a jackknife that deletes groups.

    Picture i is in group i mod G. With θ_g the value without group g and θ̄ their mean, the error is
    √((G − 1)/G · Σ_g (θ_g − θ̄)²) (Efron & Stein 1981). No chance is in it; and unlike a bootstrap
    it repeats no picture, which would have itself as a neighbour at distance 0. It tells how far
    another drawing of as many pictures would be, not the bias of few pictures, nor the choice of
    the reference. It is itself known to 1/√(2(G − 1)), 24 % with ten groups.

    Raises:
        ValueError: as in ``quality``, or there are too few pictures for a metric.
    """
    groups = min(groups, len(features.pooled))
    found: dict[str, Estimate] = {}
    for metric in quality(reference, names).values():
        assert isinstance(metric, Quality)
        whole, *parts = metric.held_out(features, groups)
        for name, value in whole.items():
            without = torch.stack([part[name] for part in parts])
            spread = (without - without.mean()).square().sum() * (groups - 1) / groups
            found[name] = Estimate(float(value), float(spread.sqrt()))
    return found


def nearest(features: Features, reference: Reference) -> tuple[Tensor, Tensor]:
    """Which reference picture is nearest to each of N, and how far: (N,) int64, (N,) float32."""
    return neighbours.nearest(features.pooled, reference.features.pooled)
