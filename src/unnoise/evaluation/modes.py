"""Which of the known combinations of a data set drawn pictures show, and how many of them."""

import torch
from torch import Tensor

from unnoise.data.source import HasCombinations
from unnoise.evaluation.results import Estimate


def modes(source: HasCombinations, pictures: Tensor, groups: int = 10) -> dict[str, Estimate]:
    """``recognised`` and ``modes`` of pictures (N, C, H, W) uint8, with standard errors.

    ``recognised`` is the share of pictures that show any combination, in training or held out from
    it; ``modes`` the share of the combinations of training that at least one picture shows. The
    latter grows with N, so compare equal N: of N draws at random from M equal combinations the
    expected share is 1 − (1 − 1/M)^N. Errors are by the jackknife of ``estimates``, with the
    pictures i mod G as groups.
    """
    numbers = source.combination(pictures)
    group = torch.arange(len(numbers)) % groups

    def of(some: Tensor) -> Tensor:
        reached = torch.unique(some[(some >= 0) & (some < source.combinations)])
        return torch.tensor([(some >= 0).double().mean(), len(reached) / source.combinations])

    parts = torch.stack([of(numbers[group != each]) for each in range(groups)])
    errors = ((parts - parts.mean(0)).square().sum(0) * (groups - 1) / groups).sqrt()
    (recognised, reached), (e_recognised, e_reached) = of(numbers).tolist(), errors.tolist()
    return {
        "recognised": Estimate(recognised, e_recognised),
        "modes": Estimate(reached, e_reached),
    }
