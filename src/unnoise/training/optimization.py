"""Optimizers, and the learning rate as a function of the step alone."""

import math
from collections.abc import Callable, Iterable
from typing import Literal

from torch import nn
from torch.optim import Optimizer

OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer]
"""Parameters to their optimizer: what a ``conf/optimizer`` file stands for."""


def factor(
    step: int, warmup_steps: int, decay: Literal["constant", "cosine"], max_steps: int
) -> float:
    """What multiplies the learning rate of optimizer step ``step`` = 0 … max_steps − 1.

    It rises linearly to 1 over ``warmup_steps`` and then stays, or falls by half a cosine to 0.
    """
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    if decay == "constant":
        return 1.0
    progress = (step - warmup_steps) / max(1, max_steps - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
