"""Where a command computes."""

import os
from datetime import timedelta
from typing import Any

import torch

from unnoise.cli.config import Problem


def device_problems(name: object) -> list[Problem]:
    """What keeps torch from computing on the device; "auto" is always right."""
    try:
        torch.zeros((), device="cpu" if name == "auto" else str(name)).item()
    except (RuntimeError, AssertionError) as error:
        return [Problem("device", f"{name} cannot be used here: {_first(error)}")]
    return []


def _first(error: Exception) -> str:
    """The first sentence; torch can say a whole paragraph."""
    return str(error).splitlines()[0].partition(". ")[0]


def named_device(name: str) -> torch.device:
    """The device; "auto" takes an accelerator where there is one, under torchrun one a process."""
    if name != "auto":
        return torch.device(name)
    if not torch.accelerator.is_available():
        return torch.device("cpu")
    found = torch.accelerator.current_accelerator()
    assert found is not None
    return torch.device(found.type, int(os.environ.get("LOCAL_RANK", 0)))


def processes() -> tuple[int, int]:
    """This process's rank and how many there are; more than one under torchrun, which then meet.

    They wait for each other for a week: one may compute a reference, and torchrun ends them all
    when one fails.
    """
    ranks = int(os.environ.get("WORLD_SIZE", 1))
    if ranks > 1 and not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo", timeout=timedelta(days=7))
    return int(os.environ.get("RANK", 0)), ranks


def gathered(part: Any) -> list[Any]:
    """What every process has, by rank, on the first of them; the others get nothing."""
    rank, ranks = processes()
    if ranks == 1:
        return [part]
    parts: list[Any] = [None] * ranks if rank == 0 else []
    torch.distributed.gather_object(part, parts if rank == 0 else None)
    return parts
