"""Extractors that come along: their files, and what they see of fixed pictures."""

from functools import partial

import torch
from torch import Tensor

from unnoise.diffusion.noise import Noise
from unnoise.evaluation.extractors.base import extract
from unnoise.evaluation.extractors.domain import SHIPPED, shipped
from unnoise.evaluation.selftest.check import Check, Result

RMS = {"garments": 0.9334177, "sprites": 3.467404}
"""Root mean square of the pooled features of ``pictures``, as recorded."""


def pictures() -> Tensor:
    """Eight noisy pictures (8, 3, 40, 40) uint8, of a size that no extractor reads."""
    colour = 128 + 60 * Noise(0, torch.arange(8)).normal("pictures", (3, 40, 40))
    return colour.round().clamp(0, 255).to(torch.uint8)


def features(name: str, device: torch.device) -> Result:
    """Root mean square of its pooled features; a file with a wrong digest is an error."""
    found = extract(shipped(name).to(device), [pictures()], device).pooled
    rms = float(found.double().square().mean().sqrt())
    return Result(rms, RMS[name], 1e-4 * RMS[name])


CHECKS = [
    Check(
        "extractors",
        f"{name}: rms of features, weights by digest",
        f"SHA-256 {digest[:16]}…; recorded on a CPU, torch 2.15",
        partial(features, name),
    )
    for name, digest in SHIPPED.items()
]
