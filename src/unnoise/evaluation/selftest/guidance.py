"""Guidance between two predictions known in closed form."""

from functools import partial

import torch

from unnoise.diffusion.denoiser import Denoised
from unnoise.diffusion.guidance import Guidance, extrapolated
from unnoise.diffusion.levels import NoiseLevel
from unnoise.diffusion.noise import Noise
from unnoise.diffusion.oracle import GaussianOracle
from unnoise.diffusion.schedules import linear
from unnoise.evaluation.selftest.check import Check, Result

CONDITIONAL, UNCONDITIONAL = GaussianOracle(mu=0.5, s=0.2), GaussianOracle(mu=-0.1, s=0.4)


def guided(scale: float, tolerance: float, device: torch.device) -> Result:
    """max |ε − (s·ε_conditional + (1 − s)·ε_unconditional)| and that of x0, in float32."""
    x_t = Noise(0, torch.arange(8, device=device)).normal("x_T", (64,))

    def pair(x: torch.Tensor, level: NoiseLevel) -> tuple[Denoised, Denoised]:
        return CONDITIONAL(x, level), UNCONDITIONAL(x, level)

    off = 0.0
    for level in linear().grid(5)[:-1]:
        found = extrapolated(CONDITIONAL, pair, Guidance(scale))(x_t, level)
        for part in ("x0", "eps"):
            strong, weak = (getattr(denoised, part) for denoised in pair(x_t, level))
            expected = scale * strong + (1 - scale) * weak
            off = max(off, float((getattr(found, part) - expected).abs().max()))
    return Result(off, 0, tolerance)


GROUP, SOURCE = "guidance", "Ho & Salimans 2022, eq. 6, with s = 1 + w"
CHECKS = [
    Check(GROUP, "s = 1 is the conditional prediction, exactly", SOURCE, partial(guided, 1.0, 0.0)),
    Check(
        GROUP, "s = 0 is the unconditional prediction, exactly", SOURCE, partial(guided, 0.0, 0.0)
    ),
    Check(GROUP, "s = 3 is 3·conditional − 2·unconditional", SOURCE, partial(guided, 3.0, 1e-5)),
]
