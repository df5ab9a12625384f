"""The outcomes for a terminal of 100 columns, and as plain values."""

import math
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any
from unicodedata import combining

import torch

from unnoise.evaluation.selftest.check import Outcome

WIDTHS = (50, 12, 12, 9)  # of name, got, expected and tolerance
PACKAGES = ("unnoise", "torch", "lightning", "torchmetrics", "numpy")


def heading() -> str:
    """Above the rows."""
    return _line(("check", "got", "expected", "tolerance"), "verdict")


def row(outcome: Outcome) -> str:
    """One check in a line."""
    name, result = f"  {outcome.check.name}", outcome.result
    verdict = "pass" if outcome.passed else "FAIL"
    if result is None:
        return _line((name, "error", "", ""), verdict)
    numbers = _number(result.got), _number(result.expected), f"{result.tolerance:.2g}"
    return _line((name, *numbers), verdict)


def summary(
    found: Sequence[Outcome], versions: Mapping[str, str], hardware: Mapping[str, str]
) -> str:
    """How many passed, what did not and why that was expected, and where this holds."""
    seconds = sum(outcome.seconds for outcome in found)
    failed = [outcome for outcome in found if not outcome.passed]
    lines = [
        f"{len(failed)} of {len(found)} checks failed ({seconds:.0f} s):"
        if failed
        else f"All {len(found)} checks passed ({seconds:.0f} s)."
    ]
    for outcome in failed:
        check = outcome.check
        lines.append(f"  {check.group}: {check.name}")
        lines.append(f"    expected by: {check.source}")
        if outcome.error is not None:
            lines.append(f"    {outcome.error}"[:100])
    for about in (versions, hardware):
        lines.append(", ".join(f"{name} {text}" for name, text in about.items()))
    return "\n".join(lines)


def plain(outcome: Outcome) -> dict[str, Any]:
    """A row as plain values, for JSON; a number that is none is given in words."""
    check, result = outcome.check, outcome.result
    numbers = dict.fromkeys(("got", "expected", "tolerance")) if result is None else vars(result)
    return {
        **{key: value for key, value in vars(check).items() if key != "run"},
        **{k: str(v) if v is not None and not math.isfinite(v) else v for k, v in numbers.items()},
        "passed": outcome.passed,
        "error": outcome.error,
        "seconds": round(outcome.seconds, 3),
    }


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


def _line(cells: Sequence[str], verdict: str) -> str:
    padded = []
    for text, width in zip(cells, WIDTHS, strict=True):
        letters = sum(not combining(each) for each in text)  # the tilde of β̃ takes no room
        padded.append(text + " " * (width - letters))
    return "  ".join((*padded, verdict))


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}"
