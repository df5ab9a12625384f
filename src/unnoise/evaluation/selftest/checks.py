"""All checks, in the order of the table."""

from unnoise.evaluation.selftest import metrics, networks, randomness, samplers, schedules

MODULES = (schedules, randomness, samplers, networks, metrics)
CHECKS = [check for module in MODULES for check in module.CHECKS]
