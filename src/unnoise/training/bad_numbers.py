"""Losses and gradients that are not finite."""


class RollBack(Exception):
    """Training is to go on from the last checkpoint, with other noise."""
