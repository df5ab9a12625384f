"""The averaged weights of a run, for another run to start from."""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from unnoise.runs.checkpoints import find_checkpoint, read_checkpoint
from unnoise.runs.first_stage import weights_digest
from unnoise.untrusted import UnsafeFile

if TYPE_CHECKING:
    from torch import Tensor

PREFIX = "ema.model."


class Averaged(NamedTuple):
    """The config and the model of a checkpoint, its averaged weights by name, and their digest."""

    config: dict[str, Any]
    model: dict[str, Any]
    weights: "dict[str, Tensor]"
    digest: str


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
        weights = {
            name.removeprefix(PREFIX): value
            for name, value in content["state_dict"].items()
            if name.startswith(PREFIX)
        }
        return Averaged(content["config"], content["model"], weights, weights_digest(weights))
    except (AttributeError, KeyError, TypeError) as error:
        raise UnsafeFile(path, f"is not a whole checkpoint of unnoise: {error}") from error
