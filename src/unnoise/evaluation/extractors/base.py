"""What metrics see of pictures: the features of a network."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

LUMA = (0.299, 0.587, 0.114)  # of R, G and B (ITU-R BT.601)


class Features(NamedTuple):
    """Of B pictures: ``pooled`` (B, D), ``spatial`` (B, S), ``logits`` (B, K); float32.

    ``pooled`` are those of the last layer, averaged over the picture; ``spatial`` some channels of
    a layer in the middle, flattened, which say where things are (Nash et al. 2021, sFID);
    ``logits`` those of the classes the network was trained to tell apart.
    """

    pooled: Tensor
    spatial: Tensor
    logits: Tensor


class Manifold(NamedTuple):
    """What precision, recall, density and coverage seek neighbours by, and among how many.

    ``part`` is one of ``Features``; ``most`` real pictures are taken, None is all of the reference.
    """

    part: Literal["pooled", "spatial"] = "pooled"
    most: int | None = None

    def __str__(self) -> str:
        """As in "spatial of 1000"."""
        return f"{self.part} of {self.most or 'all'}"


POOLED = Manifold()


class Extractor(nn.Module, ABC):
    """A frozen network that turns pictures into features.

    A distance is named after it: ``fd_garments``; by Inception it is ``fid``. ``digest`` is the
    SHA-256 of its weights, ``resize`` says in words how pictures come to the size that it reads,
    as in "bilinear 28" or "none 16"; both are part of the fingerprint of a number.
    """

    name: str
    digest: str
    resize: str
    manifold = POOLED

    @property
    def about(self) -> dict[str, str]:
        """What features depend on, pictures aside."""
        names = {"extractor": self.name, "extractor_digest": self.digest}
        return {**names, "resize": self.resize}

    @abstractmethod
    def forward(self, pictures: Tensor) -> Features:
        """Features of pictures (B, 1 or 3, H, W) uint8 of any size, each on its own.

        Raises:
            ValueError: the pictures are not uint8, or have neither 1 nor 3 channels.
        """


def read(pictures: Tensor, channels: int) -> Tensor:
    """Pictures (B, 1 or 3, H, W) uint8 as floats (B, channels, H, W) in [0, 255].

    Grey is repeated; of colour one channel is the luma, 0.299 R + 0.587 G + 0.114 B.

    Raises:
        ValueError: the pictures are not uint8, or have neither 1 nor 3 channels.
    """
    if pictures.dtype != torch.uint8 or pictures.ndim != 4 or pictures.shape[1] not in (1, 3):
        raise ValueError(
            "an extractor reads pictures (B, 1 or 3, H, W) uint8, "
            f"not {tuple(pictures.shape)} {pictures.dtype}"
        )
    return in_channels(pictures.float(), channels)


def in_channels(x: Tensor, channels: int) -> Tensor:
    """Floats (B, 1 or 3, H, W) as (B, channels, H, W), as ``read`` does."""
    if x.shape[1] > channels:
        return (x * x.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)
    return x.expand(-1, channels, -1, -1)


@torch.inference_mode()
def extract(extractor: Extractor, batches: Iterable[Tensor], device: torch.device) -> Features:
    """The features of all pictures of ``batches``, each (B, C, H, W) uint8, on the CPU."""
    found = [
        Features(*(part.float().cpu() for part in extractor(batch.to(device)))) for batch in batches
    ]
    return Features(*(torch.cat(parts) for parts in zip(*found, strict=True)))
