"""The averaged weights of a run, for another run to start from or to work in the latent of."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unnoise.runs.checkpoints import find_checkpoint, read_checkpoint
from unnoise.untrusted import UnsafeFile

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Averaged:
    """The ``config`` and the ``model`` of a checkpoint at ``path``, and its averaged weights."""

    path: Path
    config: dict[str, Any]
    model: dict[str, Any]
    weights: "dict[str, Tensor]"

    @cached_property
    def digest(self) -> str:
        """Of the weights."""
        return weights_digest(self.weights)


def averaged(run: str | Path) -> Averaged:
    """Of a run directory or a checkpoint.

    Raises:
        FileNotFoundError: there is no such run, or no checkpoint in it.
        UnsafeFile: the checkpoint is not whole.
    """
    path = find_checkpoint(Path(run).expanduser())
    file = path.stat()
    return _read(path, file.st_mtime_ns, file.st_size)


@cache
def _read(path: Path, changed: int, size: int) -> Averaged:
    content = read_checkpoint(path)
    try:
        weights = below(content["state_dict"], "ema.model.")
        return Averaged(path, content["config"], content["model"], weights)
    except (AttributeError, KeyError, TypeError) as error:
        raise UnsafeFile(path, f"is not a whole checkpoint of unnoise: {error}") from error


def below(weights: "Mapping[str, Tensor]", prefix: str) -> "dict[str, Tensor]":
    """Those whose names start with ``prefix``, without it."""
    return {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}


def weights_digest(weights: "Mapping[str, Tensor]") -> str:
    """16 hexadecimal digits of the SHA-256 of names, shapes, types and numbers."""
    import torch

    whole = hashlib.sha256()
    for name in sorted(weights):
        value = weights[name].detach().cpu().contiguous()
        whole.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        whole.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return whole.hexdigest()[:16]
