"""The time that a system trains for.

It is processor time: what a clock on the wall would show for one thread with a core to itself. So
other work on a shared machine costs a system nothing.
"""

from collections.abc import Callable
from time import process_time


class Budget:
    """Optimizer steps for a number of seconds; ``steps`` and ``used`` say what was done in them."""

    def __init__(self, seconds: float, clock: Callable[[], float] = process_time) -> None:
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
