"""Where a command computes."""

import torch

from unnoise.cli.config import Problem


def device_problems(name: object) -> list[Problem]:
    """What keeps torch from computing on the device; "auto" is always right."""
    try:
        torch.zeros((), device="cpu" if name == "auto" else str(name)).item()
    except (RuntimeError, AssertionError) as error:
        return [Problem("device", f"{name} cannot be used here: {str(error).splitlines()[0]}")]
    return []


def named_device(name: str) -> torch.device:
    """The device; "auto" takes an accelerator where there is one."""
    if name != "auto":
        return torch.device(name)
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return found or torch.device("cpu")
