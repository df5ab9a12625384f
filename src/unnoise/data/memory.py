"""Images held in memory: N of C channels (1 grey, 3 colour) and H × W pixels, uint8."""

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from unnoise.data.source import Images


class Unreadable(ValueError):
    """A picture's file cannot be decoded; the message names its number and its file."""

    def __str__(self) -> str:
        """The message alone, also where a worker process has put its traceback before it."""
        return super().__str__().rpartition(f"{type(self).__name__}: ")[2].strip()


class Removed(Unreadable):
    """A picture's file has gone since its folder was listed; the message names it."""


def stand_ins(n: int, problems: Mapping[int, str], most: int) -> np.ndarray:
    """Of each of n images its own number (n,), but of one with problems that of the next without.

    Raises:
        Unreadable: more than ``most`` have problems, or all; names ten.
    """
    bad = sorted(problems)
    if len(bad) > most or len(bad) == n:
        listed = "; ".join(problems[index] for index in bad[:10])
        more = f"; and {len(bad) - 10} more" if len(bad) > 10 else ""
        raise Unreadable(
            f"{len(bad)} images are unreadable, data.quarantine is {most}: {listed}{more}"
        )
    rows = np.arange(n)
    for index in bad:
        after = range(index + 1, index + n)
        rows[index] = next(k % n for k in after if k % n not in problems)
    return rows


class TensorImages(Images):
    """Images (N, C, H, W) uint8 with labels (N,) int64 and, if any, N captions.

    Raises:
        ValueError: a dtype, a shape or a length is not as above.
    """

    def __init__(
        self, images: Tensor, labels: Tensor, captions: Sequence[str] | None = None
    ) -> None:
        if images.dtype != torch.uint8 or images.ndim != 4:
            raise ValueError(
                f"images must be uint8 (N, C, H, W), not {images.dtype} {tuple(images.shape)}"
            )
        if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
            raise ValueError(
                f"labels must be int64 ({len(images)},), not {labels.dtype} {tuple(labels.shape)}"
            )
        if captions is not None and len(captions) != len(images):
            raise ValueError(f"{len(captions)} captions for {len(images)} images")
        self.images, self.labels, self.captions = images, labels, captions

    def read(self, indices: Tensor) -> Tensor:
        """Images ``indices`` (B,) as uint8 (B, C, H, W)."""
        return self.images.index_select(0, indices)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the shape, the pixels, the labels and the captions."""
        digest = hashlib.sha256(repr(tuple(self.images.shape)).encode())
        digest.update(np.ascontiguousarray(self.images).data)
        digest.update(np.ascontiguousarray(self.labels).data)
        for caption in self.captions or ():
            digest.update(caption.encode() + b"\0")
        return digest.hexdigest()
