"""Averages of weights put together after training, against those that training keeps."""

from functools import partial

import numpy as np
import torch
from torch import nn

from unnoise.evaluation.selftest.check import Result, group
from unnoise.models.averages import PowerAverage, Profile, combination, gamma_of, overlap

UPDATES, EVERY, LENGTHS = 1024, 64, (0.05, 0.15)
KEPT = [Profile(t, length) for t in range(EVERY, UPDATES + 1, EVERY) for length in LENGTHS]


def followed(length: float) -> list[float]:
    """After each update, the average of a weight that falls and swings as training keeps it."""
    model, t = nn.Linear(1, 1, bias=False).double(), torch.arange(1, UPDATES + 1) / UPDATES
    average, found = PowerAverage(model, length), []
    for value in (torch.exp(-3 * t) + 0.1 * torch.sin(40 * t)).tolist():
        nn.init.constant_(model.weight, value)
        average.update([*model.parameters()])
        found.append(float(average.model.weight.detach()))
    return found


def spread(length: float, device: torch.device) -> Result:
    """The standard deviation of τ/t, by even quantiles of p."""
    u = (np.arange(100_000) + 0.5) / 100_000
    return Result(float((u ** (1 / (gamma_of(length) + 1))).std()), length, 1e-6)


def own_overlap(device: torch.device) -> Result:
    """∫ p² of an average of all updates alike, nearly: 1/t."""
    return Result(overlap(Profile(8, 0.28867), Profile(8, 0.28867)), 1 / 8, 1e-4)


def put_together(length: float, device: torch.device) -> Result:
    """From 16 snapshots of two averages, beside the average itself."""
    values = {each: followed(each) for each in LENGTHS}
    shares, _ = combination(KEPT, Profile(UPDATES, length))
    parts = (x * values[p.length][p.updates - 1] for x, p in zip(shares, KEPT, strict=True))
    return Result(sum(parts), followed(length)[-1], 1e-3)


_PAPER = "Karras et al. 2024, EDM2, §3.1 and appendix C"
CHECKS = group(
    "averages of weights",
    ("length 0.05 is the deviation of its profile", _PAPER, partial(spread, 0.05)),
    ("overlap with itself, all updates alike", "∫ p² = 1/t", own_overlap),
    ("one of length 0.10 put together", "kept in training", partial(put_together, 0.10)),
    ("one of length 0.20 put together", "kept in training", partial(put_together, 0.20)),
)
