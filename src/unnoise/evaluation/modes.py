"""Which of the known combinations of a data set drawn pictures show, and how many of them."""

import torch
from torch import Tensor

from unnoise.data.source import HasCombinations
from unnoise.evaluation.estimates import groups, jackknife
from unnoise.evaluation.results import Estimate


def modes(source: HasCombinations, pictures: Tensor) -> dict[str, Estimate]:
    """``recognised`` and ``modes`` of pictures (N, C, H, W) uint8, with standard errors.

    ``recognised`` is the share of pictures that show any combination, in training or held out from
    it; ``modes`` the share of the combinations of training that at least one picture shows. The
    latter grows with N, so compare equal N: of N draws at random from M equal combinations the
    expected share is 1 − (1 − 1/M)^N. For errors see ``jackknife``.
    """
    numbers, group = source.combination(pictures), groups(len(pictures))

    def recognised(kept: Tensor) -> float:
        return float((numbers[kept[group]] >= 0).double().mean())

    def reached(kept: Tensor) -> float:
        some = torch.unique(numbers[kept[group]])
        return int(((some >= 0) & (some < source.combinations)).sum()) / source.combinations

    n = len(pictures)
    return {
        "recognised": Estimate(*jackknife(recognised, n)),
        "modes": Estimate(*jackknife(reached, n)),
    }
