"""unnoise: diffusion models that read like the papers, on Lightning and Hydra."""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unnoise.api import Model, Pictures, load

# A thread that waits for another spins for a moment, then sleeps. By default it spins much longer:
# where other programs use the cores too, a training step then takes five times as long and more.
os.environ.setdefault("GOMP_SPINCOUNT", "4000")  # torch reads it when it is imported

__all__ = ["Model", "Pictures", "load"]


def __getattr__(name: str) -> Any:
    """Import the API when it is first used: commands that only answer a question start faster."""
    if name not in __all__:
        raise AttributeError(f"module 'unnoise' has no attribute '{name}'")
    from unnoise import api

    return getattr(api, name)
