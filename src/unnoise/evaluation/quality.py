"""How good drawn pictures are against a reference, with the uncertainty of each number."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from unnoise.evaluation import neighbours
from unnoise.evaluation.extractors.base import Features
from unnoise.evaluation.metrics import (
    Compare,
    Compared,
    Frechet,
    Kernel,
    Neighbourhood,
    Quality,
    Recall,
    Score,
)
from unnoise.evaluation.reference import Reference
from unnoise.evaluation.results import Estimate

KINDS = ("fd", "sfd", "kid", "is", "precision", "recall", "density", "coverage", "memorised")
"""What can be measured; see ``metric_name`` for the names of the numbers."""
INCEPTION = {"fd": "fid", "sfd": "sfid"}


def metric_name(kind: str, extractor: str) -> str:
    """The name of a number: kind and extractor, as in "fd_garments".

    By Inception it is the literature's: fid, sfid, kid, is, precision, …
    """
    return INCEPTION.get(kind, kind) if extractor == "inception" else f"{kind}_{extractor}"


def known(kinds: Sequence[str | Compare]) -> tuple[str | Compare, ...]:
    """The metrics, if there is one and all that are strings are in KINDS.

    Raises:
        ValueError: a string is not, or there is no metric.
    """
    if unknown := [kind for kind in kinds if isinstance(kind, str) and kind not in KINDS]:
        raise ValueError(f"no metric is called {unknown[0]!r}; there are {', '.join(KINDS)}")
    if not kinds:
        raise ValueError(f"name at least one metric of {', '.join(KINDS)}")
    return tuple(kinds)


def quality(reference: Reference, kinds: Sequence[str | Compare] | None = None) -> MetricCollection:
    """Metrics against a reference: some of KINDS and functions of features (None: all of KINDS).

    ``update`` takes Features of drawn pictures; ``compute`` gives {"fd_garments": a scalar, …} in
    float64, over the pictures of all processes. A function's number is called as the function.

    Raises:
        ValueError: a string is not in KINDS, there is no metric, or the reference is too small.
    """
    chosen = KINDS if kinds is None else known(kinds)
    full = {kind: metric_name(kind, reference.extractor) for kind in KINDS if kind in chosen}
    makers: dict[str, Callable[[str], Quality]] = {
        "fd": lambda name: Frechet(name, "pooled", reference),
        "sfd": lambda name: Frechet(name, "spatial", reference),
        "kid": lambda name: Kernel(name, reference),
        "is": lambda name: Score(name, reference),
        "recall": lambda name: Recall(name, reference),
    }
    metrics: dict[str, Metric | MetricCollection] = {
        name: makers[kind](name) for kind, name in full.items() if kind in makers
    }
    if among := {kind: name for kind, name in full.items() if kind not in makers}:
        metrics["neighbourhood"] = Neighbourhood(among, reference)
    for compare in chosen:
        if not isinstance(compare, str):
            name = metric_name(getattr(compare, "func", compare).__name__, reference.extractor)
            metrics[name] = Compared(name, compare, reference)
    return MetricCollection(metrics, compute_groups=False)


def estimates(
    reference: Reference,
    features: Features,
    kinds: Sequence[str | Compare] | None = None,
    groups: int = 10,
) -> dict[str, Estimate]:
    """The metrics of all pictures, with standard errors by a jackknife that deletes groups.

    A group is N/G pictures that follow each other, so that classes and captions that are drawn in
    turn are in all groups alike; pictures that are sorted by class must be mixed before. With θ_g
    the value without group g and θ̄ the mean of these, the error is √((G − 1)/G · Σ_g (θ_g − θ̄)²).
    No chance is in it, and unlike a bootstrap it repeats no picture, which would be its own
    neighbour at distance 0.

    The error tells how far the value of another drawing of as many pictures would be; the choice of
    the reference, and what few pictures add to a distance, are not in it. It is too large rather
    than too small (Efron & Stein 1981): on normal features by up to a tenth for most metrics, a
    quarter for distances near their least, two thirds for recall and coverage, which hang on single
    pictures. By itself it is uncertain to 1/√(2(G − 1)), 24 % with ten groups. Fewer pictures than
    groups are a group each.

    Raises:
        ValueError: as by ``quality``; there are too few pictures for a metric; or G < 2.
    """
    groups = min(groups, len(features.pooled))
    if groups < 2:
        raise ValueError(f"errors take 2 pictures and 2 groups of them, not {groups}")
    place = (torch.arange(len(features.pooled)) % groups).argsort(stable=True).argsort()
    features = Features(*(part[place] for part in features))  # row i mod G is in group i now
    found: dict[str, Estimate] = {}
    for metric in quality(reference, kinds).values():
        assert isinstance(metric, Quality)
        value, *without = metric.held_out(features, groups)
        for name in value:
            parts = torch.stack([each[name] for each in without])
            error = ((parts - parts.mean()).square().sum() * (groups - 1) / groups).sqrt()
            found[name] = Estimate(float(value[name]), float(error))
    order = [metric_name(kind, reference.extractor) for kind in KINDS]
    return {name: found[name] for name in dict.fromkeys([*order, *found]) if name in found}


def nearest(features: Features, reference: Reference) -> tuple[Tensor, Tensor]:
    """Which reference picture is nearest to each of N, and how far: (N,) int64, (N,) float32."""
    return neighbours.nearest(features.pooled, reference.features.pooled)
