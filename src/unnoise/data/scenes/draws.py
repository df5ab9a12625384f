"""Whole numbers at random, as a function of a key and a counter: no generator has a state.

Source: Philox-4x64 of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011), in
NumPy, which keeps its words the same in all versions and on all machines.
"""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def key_of(*numbers: int) -> int:
    """The key of 128 bits that belongs to these numbers, each of 0 … 2³² − 1."""
    low, high = np.random.SeedSequence(numbers).generate_state(2, np.uint64).tolist()
    return int(low | high << 64)


class Draws:
    """An endless row of random numbers: words of Philox from (0, index, purpose, 0) on."""

    def __init__(self, key: int, index: int, purpose: int) -> None:
        self._bits = np.random.Philox(key=key, counter=index << 64 | purpose << 128)
        self._words: list[int] = []

    def below(self, n: int) -> int:
        """One of 0 … n − 1."""
        if not self._words:
            self._words = self._bits.random_raw(128).tolist()
        return self._words.pop() % n

    def between(self, least: int, most: int) -> int:
        """One of least … most."""
        return least + self.below(most - least + 1)

    def choice(self, values: Sequence[T]) -> T:
        """One of the values."""
        return values[self.below(len(values))]
