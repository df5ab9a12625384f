"""unnoise: diffusion models that read like the papers, on Lightning and Hydra."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unnoise.api import Model, Pictures, load

__all__ = ["Model", "Pictures", "load"]


def __getattr__(name: str) -> Any:
    """Import the API when it is first used: commands that only answer a question start faster."""
    if name not in __all__:
        raise AttributeError(f"module 'unnoise' has no attribute '{name}'")
    from unnoise import api

    return getattr(api, name)
