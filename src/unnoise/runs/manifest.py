"""``manifest.json``: what the numbers of a run depend on besides its config, and its progress.

A run that is training, or was killed, has neither "finished" nor "failed" in it.
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

from unnoise.files import write_text
from unnoise.runs.layout import RunDirectory, shown

TIME = "%Y-%m-%dT%H:%M:%S%z"
KEPT = ("started", "git_commit", "overrides", "choices", "sweep", "rollbacks", "data_changed")
"""Keys that a resumed run keeps."""
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
    data_changed: str | None = None,
    since: float | None = None,
) -> Manifest:
    """Write the manifest of a run that starts, or is ``resumed`` at ``step``, on ``device``.

    ``facts`` describe the run: name, seed, data, numbers of parameters, world size, precision, …
    ``origin`` may have what was typed ("overrides"), the chosen options ("choices") and the sweep
    of which the run is a job ("sweep"). ``data_changed`` says what the data hold now that they did
    not before. ``since``, in seconds, is when a resumed run began whose manifest does not say it.
    """
    now = {"time": time.strftime(TIME), "step": step, "git_commit": _git_commit()}
    packages = ("unnoise", "torch", "lightning", "numpy")
    manifest = {
        **facts,
        "started": now["time"],
        "resumed": [],
        "rollbacks": [],
        "data_changed": [],
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
    if resumed:
        before = read(run_dir)
        if since is not None:
            manifest["started"] = time.strftime(TIME, time.localtime(since))
        manifest |= {key: before[key] for key in KEPT if key in before}
        manifest["resumed"] = [*before.get("resumed", []), now]
    if data_changed is not None:
        manifest["data_changed"] = [*manifest["data_changed"], {**now, "what": data_changed}]
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
    """Write how training ended at ``step``, ``took`` seconds after it started or was resumed.

    ``times`` of lines in ``metrics.jsonl`` give the duration of earlier parts. ``error`` is what
    ended training; an interruption is no failure, and leaves the run unfinished.
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


def pruned(run_dir: Path) -> str | None:
    """Why a search ended the run, and at which step; None if it did not."""
    return read(run_dir).get("pruned")


def read(run_dir: Path) -> Manifest:
    """The manifest of a run; empty if there is none.

    Raises:
        ValueError: it is damaged.
    """
    path = RunDirectory(run_dir).manifest
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ValueError(
            f"{shown(path)} is damaged: put back a whole one, or move it away to go on without it"
        )
    return found


def _write(run_dir: Path, manifest: Manifest) -> Manifest:
    text = json.dumps(manifest, indent=2) + "\n"
    write_text(RunDirectory(run_dir).manifest, text)
    return manifest


def _seconds_before(manifest: Manifest, times: list[float]) -> float:
    """The time from each start to the last line logged before the next start."""
    starts = [manifest["started"], *(resumed["time"] for resumed in manifest["resumed"])]
    begun = [datetime.strptime(start, TIME).timestamp() for start in starts]
    return sum(
        max((t - start for t in times if start <= t < following), default=0.0)
        for start, following in pairwise(begun)
    )


def _peak_memory(device: torch.device) -> int:
    """Bytes: allocated on the GPU, else the largest resident size of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return resident if sys.platform == "darwin" else resident * 1024


def _git_commit() -> str | None:
    """The commit of this source, with ``-dirty`` if it was changed."""
    describe = ("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    command = ["git", "-C", str(Path(__file__).parent), *describe]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()
