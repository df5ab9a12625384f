"""The devices of this machine that a trainer or a command uses, and the precision on them."""

from pathlib import Path
from typing import Literal

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


def lightning_precision(
    precision: Literal["auto", "fp32", "bf16", "fp16"], accelerator: str
) -> str:
    """Lightning's name; "auto" is bf16 autocast where the accelerator is fast at it, else fp32."""
    if precision != "auto":
        return {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}[precision]
    if uses_gpu(accelerator):
        fast = torch.cuda.get_device_capability() >= (8, 0)
    else:
        cpu = Path("/proc/cpuinfo")
        known = cpu.read_text() if cpu.exists() else ""
        fast = accelerator in ("cpu", "auto") and "avx512_bf16" in known
    return "bf16-mixed" if fast else "32-true"
