"""The autoencoder of a run, which latent diffusion calls its first stage (Rombach et al. 2022)."""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from unnoise.runs.averaged import Averaged, averaged, below, weights_digest
from unnoise.runs.identity import digest
from unnoise.untrusted import UnsafeFile

if TYPE_CHECKING:
    from torch import Tensor

PLACES = (
    ("autoencoder.", ("network",)),
    ("codec.autoencoder.network.", ("autoencoder", "network")),
)
"""Where a model has an autoencoder's weights, and where its config has its node: an autoencoder's
own run, and a run in its latent."""


class FirstStage(NamedTuple):
    """The config of an autoencoder, its weights by name, and the digest of both."""

    node: dict[str, Any]
    weights: "dict[str, Tensor]"
    digest: str


def first_stage(run: str | Path) -> FirstStage:
    """The autoencoder of a run directory or a checkpoint, of its own or of a run in its latent.

    Raises:
        FileNotFoundError: there is no such run, or no checkpoint in it.
        ValueError: it has no autoencoder; UnsafeFile if the checkpoint is not whole.
    """
    return _of(averaged(run))


@cache
def _of(content: Averaged) -> FirstStage:
    for prefix, keys in PLACES:
        if weights := below(content.weights, prefix):
            node = content.config
            try:
                for key in keys:
                    node = node[key]
            except (KeyError, TypeError) as error:
                fault = f"is not a whole checkpoint of unnoise: {error}"
                raise UnsafeFile(content.path, fault) from error
            return FirstStage(node, weights, f"{weights_digest(weights)}-{digest(node, 8)}")
    path = content.path
    raise ValueError(f"{path} is not the run of an autoencoder, nor of a model in its latent")
