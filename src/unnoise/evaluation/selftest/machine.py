"""What was verified: the versions that are installed, and the hardware."""

import platform
from importlib.metadata import version

import torch

PACKAGES = ("unnoise", "torch", "lightning", "torchmetrics", "numpy")


def versions() -> dict[str, str]:
    """Of Python and of the packages that compute."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def hardware(device: torch.device) -> dict[str, str]:
    """The device by name, and what it is driven by."""
    found = {"device": str(device), "machine": f"{platform.system()} {platform.machine()}"}
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        found["name"] = torch.cuda.get_device_name(device)
        found["capability"] = f"{major}.{minor}"
        found["CUDA"] = str(torch.version.cuda)
        found["cuDNN"] = str(torch.backends.cudnn.version())  # type: ignore[no-untyped-call]
    else:
        found["instructions"] = torch.backends.cpu.get_cpu_capability()
        found["threads"] = str(torch.get_num_threads())
    return found
