"""Which extractor is for which data, and the features of real pictures by it."""

from collections.abc import Iterator

import torch
from torch import Tensor

from unnoise.data.loading import Images, Split
from unnoise.evaluation.features import Extractor, extract
from unnoise.evaluation.reference import Reference, cached


def reference(
    images: Images, split: Split, count: int, extractor: Extractor, device: torch.device
) -> Reference:
    """The features of ``count`` pictures of a split, evenly spread over it, or of all if fewer.

    Computed once for these pictures and this extractor, and kept.
    """
    count = min(count, len(images))
    about = {
        "extractor": extractor.name,
        "extractor_digest": extractor.digest,
        "resize": extractor.resize,
        "data": images.fingerprint,
        "split": split,
        "count": count,
    }
    return cached(about, lambda: extract(extractor, spread(images, count), device))


def spread(images: Images, count: int, batch_size: int = 256) -> Iterator[Tensor]:
    """``count`` pictures of a split, evenly spread over it, in batches (B, C, H, W) uint8."""
    chosen = torch.arange(count) * len(images) // count
    for start in range(0, count, batch_size):
        yield images.read(chosen[start : start + batch_size])
