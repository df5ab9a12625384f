"""The time that a system trains for, and the learning rate that falls to 0 at its end."""

import math
from collections.abc import Callable


class Budget:
    """Optimizer steps for a number of seconds; ``steps`` and ``used`` say what was done in them."""

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self.seconds, self.steps, self.used = seconds, 0, 0.0
        self._clock = clock

    def begin(self) -> None:
        """From here on time counts: when all but training itself is done."""
        self._start = self._clock()

    def step(self) -> bool:
        """Count a step that is done; whether there is time for another."""
        self.steps += 1
        self.used = self._clock() - self._start
        return self.used < self.seconds

    @property
    def steps_in_all(self) -> int:
        """How many steps the whole time gives, by the speed so far."""
        return max(self.steps, round(self.steps * self.seconds / self.used))

    def factor(self, warmup: int) -> float:
        """Of the learning rate: rising over ``warmup`` steps, then half a cosine down to 0."""
        if self.steps < warmup:
            return (self.steps + 1) / (warmup + 1)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, self.used / self.seconds)))
