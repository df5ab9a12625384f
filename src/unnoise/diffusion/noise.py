"""Stateless randomness: every number is a pure function of (seed, purpose, sample id, draw).

Numbers do not depend on the batch, the rank, the device or earlier draws. So a run can stop
anywhere, and a picture is the same in any batch.

Source: Philox-4x32-10 of Salmon, Moraes, Dror & Shaw, "Parallel random numbers: as easy as 1, 2, 3"
(SC 2011), on whole tensors; normals by Box–Muller.
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_INCREMENTS = (0x9E3779B9, 0xBB67AE85)
_32_BITS = 0xFFFFFFFF


def philox(counter: Tensor, key: tuple[int, int]) -> Tensor:
    """Ten Philox rounds: counter (4, …), 32-bit words in int64, to random words (4, …)."""
    if counter.device.type == "cpu":  # numpy's calls cost less than half of torch's
        with np.errstate(over="ignore"):
            return torch.from_numpy(np.stack(_rounds(counter.numpy(), key)))
    return torch.stack(_rounds(counter, key))


def _rounds(counter: Any, key: tuple[int, int]) -> list[Any]:
    """Of an array or a tensor; only at the end the upper halves of b and d are cleared."""
    a, b, c, d = counter
    for r in range(10):
        key_a, key_c = ((key[i] + r * _KEY_INCREMENTS[i]) & _32_BITS for i in (0, 1))
        p, q = a * _MULTIPLIERS[0], c * _MULTIPLIERS[1]  # modulo 2^64, which keeps both halves
        a, c = q >> 32, p >> 32
        a ^= b
        a ^= key_a
        a &= _32_BITS
        c ^= d
        c ^= key_c
        c &= _32_BITS
        b, d = q, p
    return [a, b & _32_BITS, c, d & _32_BITS]


class Noise:
    """The random numbers of B samples, which their ids tell apart.

    Args:
        seed: of the run, or of the samples to draw.
        ids: (B,) int64; in training the position in the stream, in sampling the sample's number.
    """

    def __init__(self, seed: int, ids: Tensor) -> None:
        self.seed, self.ids = seed, ids

    def normal(self, purpose: str, shape: Sequence[int], draw: int = 0) -> Tensor:
        """Draw number ``draw`` of N(0, I) for ``purpose``: (B, *shape) float32."""
        n = math.prod(shape)
        a, b, c, d = self._words(purpose, -(-n // 4), draw).float()  # (B, blocks) each
        radius = (-2 * ((torch.stack((a, c)) + 1) * 2.0**-32).log()).sqrt()
        angle = torch.stack((b, d)) * (2 * math.pi * 2.0**-32)
        pairs = torch.stack((radius * angle.cos(), radius * angle.sin()))  # (2, 2, B, blocks)
        return pairs.permute(2, 0, 1, 3).reshape(len(self.ids), -1)[:, :n].reshape(-1, *shape)

    def uniform(self, purpose: str, draw: int = 0) -> Tensor:
        """Draw number ``draw`` of U[0, 1) for ``purpose``: (B,) float32, multiples of 2^-24."""
        return (self._words(purpose, 1, draw)[0, :, 0] >> 8).float() * 2.0**-24

    def normals(self, purpose: str, shape: Sequence[int]) -> Callable[[], Tensor]:
        """A function whose k-th call returns draw number k of ``normal``."""
        draws = iter(range(2**32))
        return lambda: self.normal(purpose, shape, next(draws))

    def _words(self, purpose: str, blocks: int, draw: int) -> Tensor:
        """Random words (4, B, blocks)."""
        digest = hashlib.sha256(f"{self.seed}/{purpose}".encode()).digest()
        key = int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:8], "little")
        ids = self.ids[:, None].expand(-1, blocks)
        block = torch.arange(blocks, device=ids.device).expand_as(ids)
        counter = (block, torch.full_like(ids, draw), ids & _32_BITS, (ids >> 32) & _32_BITS)
        return philox(torch.stack(counter), key)
