"""Noise schedules: the noise levels, and the time of each."""

from unnoise.diffusion.schedules.base import LEAST_LOG_SNR, NoiseSchedule, Spacing, precise
from unnoise.diffusion.schedules.continuous import (
    EDMSchedule,
    GeometricSchedule,
    LogitNormalFlow,
    RectifiedFlow,
)
from unnoise.diffusion.schedules.discrete import (
    DiscreteSchedule,
    LogNormalSNR,
    constant,
    cosine,
    given,
    linear,
    quadratic,
    sigmoid,
    zero_terminal_snr,
)
