"""What the commands that read runs check alike, and where they write."""

import atexit
import functools
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from unnoise.config.problems import UNKNOWN, Problem


def right_keys(config: Mapping[str, Any], found: Sequence[Problem]) -> set[str]:
    """The keys of the root without a problem and with nothing in them that is not resolved."""
    wrong = {problem.key.partition(".")[0] for problem in found}
    return {key for key, value in config.items() if key not in wrong and not _unresolved(value)}


def _unresolved(value: Any) -> bool:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return value is UNKNOWN or any(_unresolved(part) for part in parts)


def run_problems(key: str, run: str) -> list[Problem]:
    """Whether the run or checkpoint that a key names is there."""
    from unnoise.runs.checkpoints import find_checkpoint

    try:
        find_checkpoint(Path(run))
    except FileNotFoundError as error:
        return [Problem(key, str(error))]
    return []


def folder_problems(key: str, folder: Path) -> Iterator[Problem]:
    """Whether a folder can be written to, or made."""
    there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    if not there.is_dir():
        yield Problem(key, f"{there} is a file, not a folder")
    elif not os.access(there, os.W_OK):
        yield Problem(key, f"{there} cannot be written to")


@functools.cache
def scratch() -> str:
    """A folder for what Hydra notes of a sweep, gone when the process ends."""
    folder = tempfile.mkdtemp(prefix="unnoise_")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


OmegaConf.register_new_resolver("scratch", scratch, replace=True)


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
