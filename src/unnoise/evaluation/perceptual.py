"""How far apart two pictures look: by the features of an extractor of the data set's own."""

from typing import Self

import torch
from torch import Tensor, nn

from unnoise.data.source import ImageSource
from unnoise.evaluation.extractors.domain import DomainExtractor
from unnoise.evaluation.extractors.find import find_extractor


class PerceptualDistance(nn.Module):
    """The mean over layers and places of |û(x) − û(y)|², û the features of length 1.

    LPIPS (Zhang et al. 2018, eq. 1) with equal weights in place of learned ones, on the five layers
    of a small classifier of the data's own pictures, which is frozen. 0 … 2, since features are
    after a ReLU.
    """

    def __init__(self, extractor: DomainExtractor) -> None:
        super().__init__()
        self.extractor = extractor.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """The extractor stays in evaluation mode."""
        return super().train(False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Signals (B, C, H, W) in [−1, 1] to (B,) float32."""
        with torch.autocast(x.device.type, enabled=False):
            return torch.stack([
                (unit(f) - unit(g)).square().sum(1).mean((1, 2))
                for f, g in zip(self._features(x), self._features(y), strict=True)
            ]).mean(0)  # fmt: skip

    def _features(self, x: Tensor) -> list[Tensor]:
        h, found = self.extractor.seen_of(x.float()), []
        for part in (*self.extractor.network.shallow, *self.extractor.network.deep):
            h = part(h)
            if isinstance(part, nn.ReLU):
                found.append(h)
        return found


def unit(features: Tensor) -> Tensor:
    """(B, C, H, W) of length 1 at each place; where all are 0 they stay so."""
    return features / (features.square().sum(1, keepdim=True) + 1e-10).sqrt()


def own_extractor(name: str, source: ImageSource) -> DomainExtractor:
    """The extractor that a name stands for, on the CPU; see ``find_extractor``.

    Raises:
        ValueError: it is not there, or it is Inception, which is not of the data's own.
    """
    found = find_extractor(name, source, torch.device("cpu"))
    if not isinstance(found, DomainExtractor):
        raise ValueError(f"the perceptual distance is not by {found.name}")
    return found
