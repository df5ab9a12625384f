"""The validation loss, in all and by how noisy the pictures were."""

import math
from itertools import pairwise

import torch
from lightning.pytorch.strategies import Strategy
from torch import Tensor

from unnoise.diffusion.levels import NoiseLevel
from unnoise.diffusion.schedules import precise

EDGES = (-6.0, -3.0, 0.0, 3.0, 6.0)  # of ln SNR; at 0 signal and noise are equally strong
NAMES = tuple(
    f"validation/loss_snr{k}[{low:g},{high:g}]"
    for k, (low, high) in enumerate(pairwise((-math.inf, *EDGES, math.inf)), start=1)
)
"""From the noisiest to the cleanest; numbered, so that a dashboard shows them in this order."""


class LossBySNR:
    """Losses of samples added up in bins of ln SNR = ln(alpha²/sigma²), each [low, high)."""

    def __init__(self, device: torch.device) -> None:
        self._sums = precise(torch.zeros(2, len(NAMES), device=device))  # of losses; of samples

    def add(self, level: NoiseLevel, loss: Tensor) -> None:
        """The losses (B,) of samples at B levels."""
        log_snr = level.log_snr
        k = torch.bucketize(log_snr, torch.tensor(EDGES).to(log_snr), right=True)
        self._sums.index_add_(1, k, torch.stack((loss, torch.ones_like(loss))).to(self._sums))

    def means(self, strategy: Strategy) -> dict[str, Tensor]:
        """Over the samples of all processes: validation/loss, and each bin that holds some."""
        sums = strategy.reduce(self._sums, reduce_op="sum")
        assert isinstance(sums, Tensor)
        loss, count = sums
        bins = {name: loss[k] / count[k] for k, name in enumerate(NAMES) if count[k]}
        return {"validation/loss": loss.sum() / count.sum(), **bins}
