"""All checks, in the order of the table."""

from collections.abc import Callable

from torch import nn

from unnoise.evaluation.selftest import (
    extractors,
    guidance,
    learning,
    likelihood,
    metrics,
    networks,
    predictions,
    randomness,
    samplers,
    schedules,
)
from unnoise.evaluation.selftest.check import Check
from unnoise.evaluation.selftest.learning import Average


def checks(average: Callable[[nn.Module, float], Average]) -> list[Check]:
    """Every check; ``average`` makes the moving average (model, decay) that training takes."""
    return [
        *schedules.CHECKS,
        *predictions.CHECKS,
        *randomness.CHECKS,
        *samplers.CHECKS,
        *likelihood.CHECKS,
        *guidance.CHECKS,
        *networks.CHECKS,
        *learning.checks(average),
        *metrics.CHECKS,
        *extractors.CHECKS,
    ]
