"""What is wrong with single values: runs, folders, files, devices."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch

from unnoise.files import folder_fault
from unnoise.runs.checkpoints import find_checkpoint
from unnoise.runs.identity import Role


@dataclass(frozen=True)
class Look:
    """Beside the type of a field: what else is wrong with a value that is not null."""

    fault: Callable[[Any], str | None]


def run_fault(run: str) -> str | None:
    """Whether the run or checkpoint is there."""
    try:
        find_checkpoint(Path(run))
    except FileNotFoundError as error:
        return str(error)
    return None


def device_fault(name: str) -> str | None:
    """What keeps torch from computing on the device; "auto" is always right."""
    try:
        torch.zeros((), device="cpu" if name == "auto" else name).item()
    except (RuntimeError, AssertionError) as error:
        return f"{name} cannot be used here: {str(error).splitlines()[0].partition('. ')[0]}"
    return None


Run = Annotated[str, Look(run_fault)]
Folder = Annotated[str | None, Look(folder_fault)]
Device = Annotated[str, Look(device_fault), Role.MACHINE]
