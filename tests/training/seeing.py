"""An extractor so small that its features can be checked by hand."""

import torch

from unnoise.evaluation.extractors.base import Extractor, Features


class Tiny(Extractor):
    """Means of the channels' four quarters; draws its (unused) weights at random, as others do."""

    name, digest, resize = "tiny", "0" * 64, "none"

    def __init__(self):
        super().__init__()
        self.unused = torch.nn.Linear(2, 2)

    def forward(self, pictures):
        quarters = torch.nn.functional.adaptive_avg_pool2d(pictures.float() / 255, 2).flatten(1)
        return Features(quarters, quarters[:, :3], quarters[:, :5])


def find_tiny(name, source, device, weights=None, resize="original"):
    """Stands for ``find_extractor``."""
    if name != "auto":
        raise ValueError(f"there is no extractor {name}")
    return Tiny().to(device)
