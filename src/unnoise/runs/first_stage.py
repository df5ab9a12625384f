"""The autoencoder of a run, which latent diffusion calls its first stage (Rombach et al. 2022)."""

import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from unnoise.runs.checkpoints import find_checkpoint, read_checkpoint
from unnoise.runs.identity import digest
from unnoise.untrusted import UnsafeFile

if TYPE_CHECKING:
    from torch import Tensor

PLACES = (
    ("ema.model.autoencoder.", ("network",)),
    ("ema.model.codec.autoencoder.network.", ("autoencoder", "network")),
)
"""Where a checkpoint has an autoencoder's averaged weights, and where its config has its node:
that of an autoencoder's own run, and that of a run in its latent."""


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
    path = find_checkpoint(Path(run).expanduser())
    file = path.stat()
    return _read(path, file.st_mtime_ns, file.st_size)


@cache
def _read(path: Path, changed: int, size: int) -> FirstStage:
    content = read_checkpoint(path)
    try:
        for prefix, keys in PLACES:
            weights = {
                name.removeprefix(prefix): value
                for name, value in content["state_dict"].items()
                if name.startswith(prefix)
            }
            if weights:
                node = content["config"]
                for key in keys:
                    node = node[key]
                return FirstStage(node, weights, f"{weights_digest(weights)}-{digest(node, 8)}")
    except (AttributeError, KeyError, TypeError) as error:
        raise UnsafeFile(path, f"is not a whole checkpoint of unnoise: {error}") from error
    raise ValueError(f"{path} is not the run of an autoencoder, nor of a model in its latent")


def weights_digest(weights: "Mapping[str, Tensor]") -> str:
    """16 hexadecimal digits of the SHA-256 of names, shapes, types and numbers."""
    import torch

    whole = hashlib.sha256()
    for name in sorted(weights):
        value = weights[name].detach().cpu().contiguous()
        whole.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        whole.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return whole.hexdigest()[:16]
