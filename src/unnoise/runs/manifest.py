"""``manifest.json``: what a run's numbers depend on besides its config, and how far it came.

While a run goes on, and after it was killed, there is neither "finished" nor "failed" in it.
"""

import json
import os
import platform
import resource
import subprocess
import sys
import time
from datetime import datetime
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from unnoise.files import write_durably
from unnoise.runs.layout import RunDirectory

TIME = "%Y-%m-%dT%H:%M:%S%z"
KEPT = ("started", "git_commit", "overrides", "choices", "sweep", "rollbacks")
"""What stays as it was when the run goes on."""
Manifest = dict[str, Any]


class Pruned(Exception):
    """A search ended the run before its last step; the message says why."""


def opened(
    run_dir: Path,
    facts: dict[str, Any],
    device: torch.device,
    step: int,
    origin: dict[str, Any],
    resumed: bool,
) -> Manifest:
    """Write the manifest of a run that starts, or goes on (``resumed``) at ``step`` on ``device``.

    ``facts`` are of the run: name, seed, data, number of parameters, world size, precision, …
    ``origin`` may say what was typed ("overrides"), which options were chosen ("choices") and of
    which sweep the run is a job ("sweep").
    """
    now = {"time": time.strftime(TIME), "step": step, "git_commit": _git_commit()}
    packages = ("unnoise", "torch", "lightning", "numpy")
    manifest = {
        **facts,
        "started": now["time"],
        "resumed": [],
        "rollbacks": [],
        "overrides": [],
        "choices": {},
        "sweep": None,
        **origin,
        "versions": {"python": platform.python_version(), **{p: version(p) for p in packages}},
        "git_commit": now["git_commit"],
        "device": str(device),
        "visible_devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "host": platform.node(),
        "pid": os.getpid(),
    }
    if resumed and (before := _read(run_dir)):
        manifest |= {key: before[key] for key in KEPT if key in before}
        manifest["resumed"] = [*before.get("resumed", []), now]
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    return _write(run_dir, manifest)


def closed(
    run_dir: Path,
    manifest: Manifest,
    step: int,
    device: torch.device,
    took: float,
    times: list[float],
    error: BaseException | None,
) -> Manifest:
    """Write how training ended.

    Args:
        run_dir: the run directory.
        manifest: as it was opened.
        step: the last optimizer step.
        device: what the run computed on.
        took: seconds since training started, or went on.
        times: when each line of ``metrics.jsonl`` was written; they tell how long earlier parts of
            the run took, killed ones too.
        error: what ended training; an interruption is no failure, and leaves the run unfinished.
    """
    ended: Manifest = {
        "steps": step,
        "seconds": round(_seconds_before(manifest, times) + took, 1),
        "peak_memory_mb": round(_peak_memory(device) / 1e6, 1),
    }
    if error is None:
        ended["finished"] = time.strftime(TIME)
    elif isinstance(error, Pruned):
        ended["pruned"] = str(error)
    elif isinstance(error, Exception):
        first_line = str(error).partition("\n")[0]
        ended["failed"] = f"{type(error).__name__}: {first_line}"
    return _write(run_dir, manifest | ended)


def add_rollback(manifest: Manifest, step: int, to: int) -> None:
    """Note that the run leaves ``step`` to go on from an earlier one; ``closed`` writes it."""
    manifest["rollbacks"].append({"time": time.strftime(TIME), "from": step, "to": to})


def rollbacks(run_dir: Path) -> int:
    """How often a run went back to an earlier step; each time its noise became another."""
    return len(_read(run_dir).get("rollbacks", []))


def pruned(run_dir: Path) -> str | None:
    """Why a search ended the run, and at which step; None of a run that it did not end."""
    return _read(run_dir).get("pruned")


def is_job(run_dir: Path) -> bool:
    """Whether the run is a job of a sweep, which resumes it by itself."""
    return bool(_read(run_dir).get("sweep"))


def _read(run_dir: Path) -> Manifest:
    path = RunDirectory(run_dir).manifest
    found: Manifest = json.loads(path.read_text()) if path.exists() else {}
    return found


def _write(run_dir: Path, manifest: Manifest) -> Manifest:
    text = json.dumps(manifest, indent=2) + "\n"
    write_durably(RunDirectory(run_dir).manifest, lambda temporary: temporary.write_text(text))
    return manifest


def _seconds_before(manifest: Manifest, times: list[float]) -> float:
    """From each start to the last line that was logged before the next start."""
    starts = [manifest["started"], *(resumed["time"] for resumed in manifest["resumed"])]
    begun = [datetime.strptime(start, TIME).timestamp() for start in starts]
    return sum(
        max((t - start for t in times if start <= t < following), default=0.0)
        for start, following in pairwise(begun)
    )


def _peak_memory(device: torch.device) -> int:
    """Bytes: of a GPU what was allocated, else the most that the process ever held."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return held if sys.platform == "darwin" else held * 1024


def _git_commit() -> str | None:
    """The commit of this source; ``-dirty`` says that it was changed since."""
    describe = ("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    command = ["git", "-C", str(Path(__file__).parent), *describe]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()
