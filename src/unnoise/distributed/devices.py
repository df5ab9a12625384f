"""The devices of this machine that a trainer or a command uses, and the precision on them."""

from pathlib import Path
from typing import Literal

import torch

from unnoise.distributed.environment import place

CPU, FAST = Path("/proc/cpuinfo"), ("avx512_bf16", "amx_bf16", "bf16")
"""Where the system lists a processor's instructions, and those for bf16 of x86 and ARM."""


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
    return "bf16-mixed" if _is_fast_at_bf16(accelerator) else "32-true"


def slow_bf16(precision: str, accelerator: str) -> str | None:
    """What to say of bf16 where it is slower than fp32; None where it is not, or not chosen."""
    if precision != "bf16" or accelerator == "mps" or _is_fast_at_bf16(accelerator):
        return None
    what = "GPU" if uses_gpu(accelerator) else "processor"
    return f"this {what} has no instructions for bf16 and may be very slow: auto is fp32 here"


def _is_fast_at_bf16(accelerator: str) -> bool:
    """Whether it has instructions for bf16; of a processor as the system lists them."""
    if uses_gpu(accelerator):
        return torch.cuda.get_device_capability() >= (8, 0)
    listed = CPU.read_text(encoding="utf-8") if CPU.exists() else ""
    return accelerator in ("cpu", "auto") and any(name in listed.split() for name in FAST)
