"""The precision of a run."""

from pathlib import Path
from typing import Literal

import torch

from unnoise.distributed.devices import uses_gpu


def lightning_precision(
    precision: Literal["auto", "fp32", "bf16", "fp16"], accelerator: str
) -> str:
    """Lightning's name; "auto" is bf16 autocast where the accelerator is fast at it, else fp32."""
    if precision != "auto":
        return {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}[precision]
    if uses_gpu(accelerator):
        fast = torch.cuda.get_device_capability() >= (8, 0)
    else:
        fast = accelerator in ("cpu", "auto") and "avx512_bf16" in _cpu_flags()
    return "bf16-mixed" if fast else "32-true"


def _cpu_flags() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""
