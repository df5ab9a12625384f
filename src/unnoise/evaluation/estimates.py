"""Metrics by name: which there are, and their values with the uncertainty of each."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from unnoise.config.problems import did_you_mean
from unnoise.evaluation import metrics
from unnoise.evaluation.extractors.base import Features
from unnoise.evaluation.metrics import Compare, SampleMetric
from unnoise.evaluation.reference import Reference
from unnoise.evaluation.results import Estimate

KINDS = ("fd", "sfd", "kid", "is", "precision", "recall", "density", "coverage", "memorised")
"""What can be measured; see ``metric_name`` for the names of the numbers."""
INCEPTION = {"fd": "fid", "sfd": "sfid"}
GROUPS = 10  # of pictures, that errors are estimated by


def metric_name(kind: str, extractor: str) -> str:
    """The name of a number: kind and extractor, as in "fd_garments".

    By Inception it is the literature's: fid, sfid, kid, is, precision, …
    """
    return INCEPTION.get(kind, kind) if extractor == "inception" else f"{kind}_{extractor}"


def metric_problems(kinds: Sequence[str | Compare], extractor: str | None = None) -> Iterator[str]:
    """What is wrong with a choice of metrics: names are to be in KINDS, all else are functions.

    A number's name, such as "fid" or "fd_garments", is none of them. The ``extractor``, where its
    name is known, only serves to say what the number would be called.
    """
    if not kinds:
        yield f"is empty: give at least one of {', '.join(KINDS)}"
    numbers = {number: kind for kind, number in INCEPTION.items()}
    for name in [each for each in kinds if isinstance(each, str) and each not in KINDS]:
        kind = numbers.get(name, name.partition("_")[0])
        near = did_you_mean(name, KINDS)
        if kind in KINDS:
            number = "" if extractor is None else f" (its number is {metric_name(kind, extractor)})"
            near = f"; did you mean '{kind}'{number}?"
        yield f"there is no metric {name}{near} ({', '.join(KINDS)})"


def metrics_by_name(
    reference: Reference, kinds: Sequence[str | Compare] | None = None
) -> MetricCollection:
    """Metrics against a reference: some of KINDS and functions of features (None: all of KINDS).

    ``update`` takes Features of drawn pictures; ``compute`` gives {"fd_garments": a scalar, …} in
    float64, over the pictures of all processes. A function's number is called as the function.

    Raises:
        ValueError: a string is not in KINDS, there is no metric, or the reference is too small.
    """
    chosen = KINDS if kinds is None else kinds
    for problem in metric_problems(chosen):
        raise ValueError(f"metrics: {problem}")
    full = {kind: metric_name(kind, reference.extractor) for kind in KINDS if kind in chosen}
    makers: dict[str, Callable[[str], SampleMetric]] = {
        "fd": lambda name: metrics.Frechet(name, "pooled", reference),
        "sfd": lambda name: metrics.Frechet(name, "spatial", reference),
        "kid": lambda name: metrics.Kernel(name, reference),
        "is": lambda name: metrics.InceptionScore(name, reference),
        "recall": lambda name: metrics.Recall(name, reference),
    }
    made: dict[str, Metric | MetricCollection] = {
        name: makers[kind](name) for kind, name in full.items() if kind in makers
    }
    if "memorised" in full:  # the nearest of all
        name = full.pop("memorised")
        made[name] = metrics.Neighbourhood({"memorised": name}, reference.whole)
    if among := {kind: name for kind, name in full.items() if kind not in makers}:
        made["neighbourhood"] = metrics.Neighbourhood(among, reference)
    for compare in chosen:
        if not isinstance(compare, str):
            name = metric_name(getattr(compare, "func", compare).__name__, reference.extractor)
            made[name] = metrics.Compared(name, compare, reference)
    return MetricCollection(made, compute_groups=False)


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
        ValueError: as by ``metrics_by_name``; there are too few pictures for a metric; or G < 2.
    """
    groups = min(groups, len(features.pooled))
    if groups < 2:
        raise ValueError(f"errors take 2 pictures and 2 groups of them, not {groups}")
    place = (torch.arange(len(features.pooled)) % groups).argsort(stable=True).argsort()
    features = Features(*(part[place] for part in features))  # row i mod G is in group i now
    found: dict[str, Estimate] = {}
    for metric in metrics_by_name(reference, kinds).values():
        assert isinstance(metric, SampleMetric)
        value, *without = metric.held_out(features, groups)
        for name in value:
            parts = torch.stack([each[name] for each in without])
            error = ((parts - parts.mean()).square().sum() * (groups - 1) / groups).sqrt()
            found[name] = Estimate(float(value[name]), float(error))
    order = [metric_name(kind, reference.extractor) for kind in KINDS]
    return {name: found[name] for name in dict.fromkeys([*order, *found]) if name in found}


def groups(n: int) -> Tensor:
    """The group 0 … 9 that each of n pictures is in, (n,): at random, always the same.

    They are equal in size but for one picture. Every tenth would not do where classes take turns.
    """
    return torch.randperm(n, generator=torch.Generator().manual_seed(0)) % min(GROUPS, n)


def jackknife(value: Callable[[Tensor], float], n: int) -> tuple[float, float]:
    """A value of n pictures, with its standard error by deleting each of its G ``groups``.

    ``value`` takes which groups are kept, (G,) bool. With θ_g the value without group g the error
    is √((G − 1)/G · Σ_g (θ_g − θ̄)²).
    """
    G = min(GROUPS, n)
    kept = ~torch.eye(G, dtype=torch.bool)
    parts = torch.tensor([value(each) for each in kept], dtype=torch.float64)
    error = ((parts - parts.mean()).square().sum() * (G - 1) / G).sqrt()
    return value(kept.any(0)), float(error)
