"""The devices of this machine that a trainer or a command uses."""

import torch

from unnoise.distributed.environment import place


def uses_gpu(accelerator: str) -> bool:
    """Whether a Trainer's ``accelerator`` is a GPU here."""
    return accelerator in ("gpu", "cuda", "auto") and torch.cuda.is_available()


def count(devices: object, accelerator: str) -> int:
    """How many devices of this machine a Trainer's ``devices`` stands for.

    It may be a number, a list, a string of either, or "auto" or −1: all GPUs, but one of any other
    accelerator.
    """
    if devices in ("auto", "-1", -1):
        return torch.cuda.device_count() if uses_gpu(accelerator) else 1
    if isinstance(devices, str) and "," in devices:
        devices = [name for name in devices.split(",") if name.strip()]
    return len(devices) if isinstance(devices, list) else int(str(devices))


def named_device(name: str) -> torch.device:
    """The device of that name; "auto" is an accelerator where there is one, else the CPU.

    Ranks on one machine share its accelerators.
    """
    if name != "auto":
        return torch.device(name)
    if not torch.accelerator.is_available():
        return torch.device("cpu")
    found = torch.accelerator.current_accelerator()
    assert found is not None
    return torch.device(found.type, place().local_rank % torch.accelerator.device_count())
