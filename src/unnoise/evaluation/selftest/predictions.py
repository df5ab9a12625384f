"""Predictions: a network that puts out the paper's target leads back to picture and noise."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from unnoise.diffusion.denoiser import (
    Denoiser,
    EDMPrediction,
    EpsilonPrediction,
    FlowPrediction,
    Prediction,
    VPrediction,
    X0Prediction,
)
from unnoise.diffusion.levels import diffuse
from unnoise.diffusion.noise import Noise
from unnoise.diffusion.schedules import EDMSchedule, NoiseSchedule, RectifiedFlow, cosine, linear
from unnoise.evaluation.selftest.check import Check, Result, with_float64

SIGMA_DATA = 0.5
Target = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""(x0, eps, alpha, sigma) to what the paper has the network put out."""


class Puts(nn.Module):
    """A network that puts out the same whatever it is shown."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = output

    def forward(self, x: Tensor, t: Tensor, condition: None) -> Tensor:
        """The output."""
        return self.output


def round_trip(
    prediction: Prediction, schedule: NoiseSchedule, target: Target, device: torch.device
) -> Result:
    """Max error of x0 and ε computed from the exact target, at four levels of a schedule."""
    noise = Noise(0, torch.arange(8, device=with_float64(device)))
    x0, eps = (noise.normal(name, (64,)).double() for name in ("x0", "eps"))
    off = 0.0
    for level in schedule.grid(4)[:-1]:
        alpha, sigma = level.like(x0)
        network = Puts(target(x0, eps, alpha, sigma))
        denoised = Denoiser(network, prediction)(diffuse(x0, eps, level), level)
        off = max(
            off, *(float((a - b).abs().max()) for a, b in ((denoised.x0, x0), (denoised.eps, eps)))
        )
    return Result(off, 0, 1e-10)


def edm_target(x0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """(x0 − c_skip·x_t)/c_out with c_skip = σ_d²/(σ² + σ_d²), c_out = σ·σ_d/√(σ² + σ_d²)."""
    whole = sigma**2 + SIGMA_DATA**2
    return (x0 - SIGMA_DATA**2 / whole * (x0 + sigma * eps)) / (sigma * SIGMA_DATA / whole.sqrt())


GROUP = "predictions"
CHECKS = [
    Check(
        GROUP,
        "ε-prediction gives back x0 and ε",
        "F = ε (Ho et al. 2020, eq. 11)",
        lambda d: round_trip(EpsilonPrediction(), linear(), lambda x0, eps, a, s: eps, d),
    ),
    Check(
        GROUP,
        "x0-prediction gives back x0 and ε",
        "F = x0",
        lambda d: round_trip(X0Prediction(), linear(), lambda x0, eps, a, s: x0, d),
    ),
    Check(
        GROUP,
        "v-prediction gives back x0 and ε",
        "F = alpha·ε − sigma·x0 (Salimans & Ho 2022)",
        lambda d: round_trip(VPrediction(), cosine(), lambda x0, eps, a, s: a * eps - s * x0, d),
    ),
    Check(
        GROUP,
        "a flow's velocity gives back x0 and ε",
        "F = ε − x0 (Lipman et al. 2023, with time reversed)",
        lambda d: round_trip(FlowPrediction(), RectifiedFlow(), lambda x0, eps, a, s: eps - x0, d),
    ),
    Check(
        GROUP,
        "EDM's F gives back x0 and ε",
        "Karras et al. 2022, Table 1",
        lambda d: round_trip(EDMPrediction(SIGMA_DATA), EDMSchedule(), edm_target, d),
    ),
]
