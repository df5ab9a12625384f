"""Samplers: one step for each method, and the loop over noise levels."""

from unnoise.diffusion.samplers.base import (
    VERSION,
    Sampler,
    Stepper,
    Walk,
    Watch,
    sample,
    steps_for,
    steps_taken,
)
from unnoise.diffusion.samplers.multistep import DPMSolver, UniPC
from unnoise.diffusion.samplers.ode import AdaptiveODE, Euler, Heun, towards
from unnoise.diffusion.samplers.stochastic import (
    DDIM,
    Ancestral,
    AnnealedLangevin,
    Consistency,
    EulerMaruyama,
    PredictorCorrector,
)
