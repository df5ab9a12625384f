"""Noise schedules: the noise levels, and the time of each."""

from unnoise.diffusion.schedules.base import (
    LEAST_LOG_SNR,
    RHO,
    NoiseSchedule,
    Spacing,
    Steps,
    precise,
)
from unnoise.diffusion.schedules.continuous import (
    CLEANEST_FLOW,
    HALF_A_DRAW,
    EDMSchedule,
    GeometricSchedule,
    LogitNormalFlow,
    Positive,
    RectifiedFlow,
    VarianceExploding,
    inside,
)
from unnoise.diffusion.schedules.discrete import (
    Beta,
    DiscreteSchedule,
    constant,
    cosine,
    linear,
    quadratic,
    sigmoid,
    zero_terminal_snr,
)

__all__ = [
    "CLEANEST_FLOW",
    "HALF_A_DRAW",
    "LEAST_LOG_SNR",
    "RHO",
    "Beta",
    "DiscreteSchedule",
    "EDMSchedule",
    "GeometricSchedule",
    "LogitNormalFlow",
    "NoiseSchedule",
    "Positive",
    "RectifiedFlow",
    "Spacing",
    "Steps",
    "VarianceExploding",
    "constant",
    "cosine",
    "inside",
    "linear",
    "precise",
    "quadratic",
    "sigmoid",
    "zero_terminal_snr",
]
