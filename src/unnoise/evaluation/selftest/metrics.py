"""Metrics on features whose distances are known, and the extractors that come along."""

import math
from functools import partial

import torch
from torch import Tensor

from unnoise.diffusion.noise import Noise
from unnoise.evaluation.estimates import estimates, metrics_by_name
from unnoise.evaluation.extractors.base import Features, extract
from unnoise.evaluation.extractors.domain import SHIPPED, shipped
from unnoise.evaluation.reference import Reference
from unnoise.evaluation.selftest.check import Result, group, with_float64


def features(pooled: Tensor, logits: Tensor | None = None) -> Features:
    """Of pictures of which only that is looked at."""
    return Features(pooled, pooled, pooled if logits is None else logits)


def normals(name: str, n: int, D: int) -> Tensor:
    """n draws of N(0, I): (n, D)."""
    return Noise(0, torch.arange(n)).normal(name, (D,))


def value(kind: str, real: Features, drawn: Features, device: torch.device) -> float:
    """A metric of drawn features, which come in batches of seven, against real ones."""
    there = with_float64(device)
    metric = metrics_by_name(Reference({"extractor": "known"}, real), [kind]).to(there)
    for start in range(0, len(drawn.pooled), 7):
        metric.update(Features(*(part[start : start + 7].to(there) for part in drawn)))
    return float(metric.compute()[f"{kind}_known"])


def frechet(device: torch.device) -> Result:
    """Of N(0, I) and N(0.1·1, 1.21·I) in 4 dimensions: 4·0.1² + 4·(1.1 − 1)² = 0.08."""
    axes = math.sqrt(4 - 0.5) * torch.eye(4)
    real = torch.cat((axes, -axes))  # 8 vectors with mean 0 and unbiased covariance I
    return Result(value("fd", features(real), features(0.1 + 1.1 * real), device), 0.08, 1e-6)


def in_parts(device: torch.device) -> Result:
    """Of 300 pictures, by three metrics of 100 that are merged as processes do, less by one."""
    real, drawn = normals("real", 300, 16), 1.5 * normals("drawn", 300, 16)
    there = with_float64(device)
    reference = Reference({"extractor": "known"}, features(real))
    parts = [metrics_by_name(reference, ["fd"]).to(there)["fd_known"] for _ in range(3)]
    for metric, part in zip(parts, drawn.view(3, 100, 16), strict=True):
        metric.update(features(part.to(there)))
    for other in parts[1:]:
        parts[0].merge_state(other)
    whole = value("fd", features(real), features(drawn), device)
    return Result(float(parts[0].compute()["fd_known"]) - whole, 0, 1e-9)


def kernel_known(device: torch.device) -> Result:
    """Of 8 times the vector of ones from 8 times 0: k(x, x) + k(y, y) − 2·k(x, y) = 8 + 1 − 2."""
    ones = torch.ones(8, 16)
    return Result(value("kid", features(0 * ones), features(ones), device), 7, 1e-6)


def kernel_of_halves(device: torch.device) -> Result:
    """Of two halves of one distribution, in standard errors; √2 for that both are drawn."""
    real, drawn = features(normals("real", 500, 16)), features(normals("drawn", 500, 16))
    found = estimates(Reference({"extractor": "known"}, real), drawn, ["kid"])["kid_known"]
    assert found.error is not None
    return Result(found.value / (math.sqrt(2) * found.error), 0, 4)


def of_half_a_copy(kind: str, device: torch.device) -> Result:
    """Of 100 drawn pictures of which 50 are real ones of 100, the others being far away."""
    real = normals("real", 100, 8)
    drawn = torch.cat((real[:50], 1000 + real[50:]))
    return Result(value(kind, features(real), features(drawn), device), 0.5, 1e-6)


def of_itself(kind: str, expected: float, device: torch.device) -> Result:
    """Of 500 normals in 64 dimensions with themselves, by Fréchet; else of 100 in 8."""
    x = features(normals("real", *((500, 64) if kind == "fd" else (100, 8))))
    return Result(value(kind, x, x, device), expected, 1e-6)


def score(device: torch.device) -> Result:
    """exp KL of pictures that are surely of one of 5 classes, each class as often: 5."""
    x = features(torch.zeros(10, 2), 1000 * torch.eye(5).repeat(2, 1))
    return Result(value("is", x, x, device), 5, 1e-6)


RMS = {"garments": 0.9334177, "sprites": 3.467404, "scenes": 0.9780287401609185}
"""Root mean square of the pooled features of ``pictures``, as recorded."""


def pictures() -> Tensor:
    """Eight noisy pictures (8, 3, 40, 40) uint8, of a size that no extractor reads."""
    colour = 128 + 60 * Noise(0, torch.arange(8)).normal("pictures", (3, 40, 40))
    return colour.round().clamp(0, 255).to(torch.uint8)


def features_rms(name: str, device: torch.device) -> Result:
    """Root mean square of its pooled features; a file with a wrong digest is an error."""
    found = extract(shipped(name).to(device), [pictures()], device).pooled
    rms = float(found.double().square().mean().sqrt())
    return Result(rms, RMS[name], 1e-4 * RMS[name])


RECORDED = "SHA-256 {:.16}…; recorded on a CPU, torch 2.15"

CHECKS = group(
    "metrics",
    ("Fréchet distance of two known Gaussians", "0.04 + 0.04", frechet),
    ("Fréchet distance of a set from itself", "0", partial(of_itself, "fd", 0)),
    ("Fréchet distance in 3 parts and whole", "the same sums", in_parts),
    ("kernel distance of two points", "Bińkowski et al. 2018", kernel_known),
    ("kernel distance of two halves, z", "0 within 4 errors", kernel_of_halves),
    ("precision of a set by itself", "1", partial(of_itself, "precision", 1)),
    ("recall of a set by itself", "1", partial(of_itself, "recall", 1)),
    ("precision, half of a set far away", "½", partial(of_half_a_copy, "precision")),
    ("memorised, half of a set copied", "½", partial(of_half_a_copy, "memorised")),
    ("score of 5 sure and even classes", "Salimans et al. 2016", score),
)
CHECKS += group(
    "extractors",
    *(
        (f"{name}: rms of features, weights by digest", RECORDED.format(digest),
         partial(features_rms, name))
        for name, digest in SHIPPED.items()
    ),
)  # fmt: skip
