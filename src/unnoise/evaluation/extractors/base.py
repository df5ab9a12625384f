"""What metrics see of pictures: the features of a network."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Features(NamedTuple):
    """Of B pictures: ``pooled`` (B, D), ``spatial`` (B, S), ``logits`` (B, K); float32.

    ``pooled`` are those of the last layer, averaged over the picture; ``spatial`` some channels of
    a layer in the middle, flattened, which say where things are (Nash et al. 2021, sFID);
    ``logits`` those of the classes the network was trained to tell apart.
    """

    pooled: Tensor
    spatial: Tensor
    logits: Tensor


class Extractor(nn.Module, ABC):
    """A frozen network that turns pictures into features.

    A distance is named after it: ``fd_garments``; by Inception it is ``fid``. ``digest`` is the
    SHA-256 of its weights, ``resize`` says in words how pictures come to the size that it reads,
    as in "bilinear 28" or "none 16"; both are part of the fingerprint of a number.
    """

    name: str
    digest: str
    resize: str

    @abstractmethod
    def forward(self, pictures: Tensor) -> Features:
        """Features of pictures (B, 1 or 3, H, W) uint8 of any size, each on its own.

        Raises:
            ValueError: the pictures are not uint8, or have neither 1 nor 3 channels.
        """


@torch.inference_mode()
def extract(extractor: Extractor, batches: Iterable[Tensor], device: torch.device) -> Features:
    """The features of all pictures of ``batches``, each (B, C, H, W) uint8, on the CPU."""
    found = [
        Features(*(part.float().cpu() for part in extractor(batch.to(device)))) for batch in batches
    ]
    return Features(*(torch.cat(parts) for parts in zip(*found, strict=True)))
