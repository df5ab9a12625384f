"""unnoise: diffusion models that read like the papers, on Lightning and Hydra."""

from unnoise.api import Pictures, TrainedModel, load

__all__ = ["Pictures", "TrainedModel", "load"]
