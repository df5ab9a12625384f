"""Errors that end a job, where a line says more than the traceback."""

from typing import Any

import torch

from unnoise.data.memory import Removed, Unreadable
from unnoise.distributed.group import ConfigMismatch
from unnoise.files import not_written
from unnoise.runs.lock import RunLocked
from unnoise.training.callbacks.checkpoints import NotSaved
from unnoise.untrusted import UnsafeFile


def explanation(error: BaseException, config: dict[str, Any]) -> str | None:
    """What happened and what to try, for a job of this config; None for an unforeseen error."""
    memory = ("can't allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
    lacks = isinstance(error, RuntimeError) and any(each in str(error) for each in memory)
    if lacks or isinstance(error, torch.OutOfMemoryError | MemoryError):
        return _out_of_memory(error, config)
    if isinstance(error, Removed):
        return f"data: {error}; start again once nothing changes the folder"
    if isinstance(error, Unreadable):
        bounded = (config.get("data") or {}).get("quarantine") == 0
        replaced = ", or let data.quarantine=N replace up to N such images" if bounded else ""
        return f"data: {error}; repair or remove it{replaced}"
    if isinstance(error, RuntimeError) and "DataLoader worker" in str(error):
        reason = str(error).partition("\n")[0].rstrip(". ")
        return f"workers: {reason}; the system kills what takes too much memory: try fewer workers"
    if isinstance(error, FloatingPointError | NotSaved | RunLocked | ConfigMismatch | UnsafeFile):
        return str(error)
    return not_written(error)


def _out_of_memory(error: BaseException, config: dict[str, Any]) -> str:
    keys = ("batch_size", "accumulate", "precision")
    given: dict[str, Any] = {key: config[key] for key in keys if key in config}
    data = config.get("data") or {}
    if "image_size" in data:
        given["data.image_size"] = str(data["image_size"]).replace(" ", "")
    settings = ", ".join(f"{key}={value}" for key, value in given.items())
    lines = [f"out of memory with {settings}: {str(error).partition(chr(10))[0]}", "what to try:"]
    parts, batch = given.get("accumulate"), given.get("batch_size")
    if parts and batch % (2 * parts) == 0:
        why = "takes the batch in smaller parts: the same run, up to rounding, in less memory"
        lines.append(f"  accumulate={2 * parts} {why}")
    if given.get("precision", "bf16") != "bf16":
        lines.append("  precision=bf16 halves what the network keeps for its gradients")
    lines.append("  a smaller batch_size, network or data.image_size")
    return "\n".join(lines)
