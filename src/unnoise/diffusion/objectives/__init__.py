"""Training objectives: the loss of a denoiser on noisy samples."""

from unnoise.diffusion.objectives.base import (
    Loss,
    Objective,
)
from unnoise.diffusion.objectives.simple import (
    SimpleLoss,
    WeightedLoss,
)
from unnoise.diffusion.objectives.variational import (
    HybridLoss,
    VariationalBound,
    bound_term,
    grid_level,
)

__all__ = [
    "HybridLoss",
    "Loss",
    "Objective",
    "SimpleLoss",
    "VariationalBound",
    "WeightedLoss",
    "bound_term",
    "grid_level",
]
