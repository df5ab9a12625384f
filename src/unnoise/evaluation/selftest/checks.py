"""All checks, in the order of the table."""

from unnoise.evaluation.selftest import (
    autoencoders,
    averages,
    consistency,
    families,
    metrics,
    networks,
    randomness,
    samplers,
    schedules,
)

MODULES = (
    schedules,
    randomness,
    samplers,
    consistency,
    networks,
    autoencoders,
    families,
    averages,
    metrics,
)
CHECKS = [check for module in MODULES for check in module.CHECKS]
