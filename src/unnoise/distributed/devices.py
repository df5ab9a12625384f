"""How many devices a trainer is asked for."""

import os

import torch


def count(devices: object, accelerator: str) -> int:
    """How many devices of this machine a Trainer's ``devices`` stands for.

    It may be a number, a list, a string of either, or "auto" or −1: all GPUs, but one of any other
    accelerator.
    """
    if devices in ("auto", "-1", -1):
        gpu = accelerator in ("gpu", "cuda", "auto") and torch.cuda.is_available()
        return torch.cuda.device_count() if gpu else 1
    if isinstance(devices, str) and "," in devices:
        devices = [name for name in devices.split(",") if name.strip()]
    return len(devices) if isinstance(devices, list) else int(str(devices))


def named_device(name: str) -> torch.device:
    """The device; "auto" takes an accelerator where there is one, under torchrun one a process."""
    if name != "auto":
        return torch.device(name)
    if not torch.accelerator.is_available():
        return torch.device("cpu")
    found = torch.accelerator.current_accelerator()
    assert found is not None
    return torch.device(found.type, int(os.environ.get("LOCAL_RANK", 0)))
