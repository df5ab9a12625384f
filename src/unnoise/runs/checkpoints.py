"""The checkpoints of a run: which there are, and which of them are whole."""

import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from unnoise.files import whole
from unnoise.runs.layout import RunDirectory, step_of
from unnoise.untrusted import UnsafeFile, load_json, load_safetensors, load_tensors

LAYOUT = 3
"""The version of the content of checkpoints; others are not read."""


class DamagedCheckpoints(ValueError):
    """A run has checkpoints, but none of them is whole."""


def check_layout(path: Path, content: Mapping[str, Any]) -> None:
    """Raise UnsafeFile if a checkpoint of a run (a file with a config) has another layout."""
    if "config" in content and content.get("layout") != LAYOUT:
        raise UnsafeFile(path, "was saved by another version of unnoise: train the run again")


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a whole checkpoint of this layout; UnsafeFile if it is none."""
    bundled = path == RunDirectory.of(path).weights
    content: dict[str, Any] = _of_bundle(path) if bundled else load_tensors(path)
    if not is_whole(path):
        raise UnsafeFile(path, "is damaged: it is not what was written")
    check_layout(path, content)
    return content


def _of_bundle(path: Path) -> dict[str, Any]:
    """The content of a bundle, whose weights are at ``path``, as a checkpoint has it."""
    about = RunDirectory.of(path).bundle
    if not whole(about):
        raise UnsafeFile(about, "is not what was written: it was changed, or SHA256SUMS is gone")
    content, (weights, _) = load_json(about), load_safetensors(path)
    if not isinstance(content, dict):
        raise UnsafeFile(about, "is not of a bundle")
    return {**content, "state_dict": {f"ema.model.{k}": value for k, value in weights.items()}}


def checkpoints(run_dir: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return RunDirectory(run_dir).saved()


def newest_whole(run_dir: Path) -> Path | None:
    """The newest undamaged checkpoint of a run; None if it has no checkpoint.

    Newer, damaged ones are reported on stderr and renamed to ``….ckpt.damaged``.

    Raises:
        DamagedCheckpoints: all are damaged. They keep their names, so that the run is not mistaken
            for a new one.
    """
    found = checkpoints(run_dir)
    if not found:
        return None
    newest = next(filter(whole, reversed(found)), None)
    if newest is None:
        names = ", ".join(path.name for path in reversed(found))
        raise DamagedCheckpoints(
            f"every checkpoint of {run_dir} is damaged ({names}): put back a whole one, or move "
            f"{run_dir / 'checkpoints'} away to start at step 0"
        )
    for path in found[found.index(newest) + 1 :]:
        aside = path.rename(f"{path}.damaged")
        print(
            f"warning: {path} is damaged (it is not what was written) and is now called "
            f"{aside.name}; {newest.name} before it is taken",
            file=sys.stderr,
        )
    return newest


def before_step(run_dir: Path, step: int) -> Path | None:
    """The newest undamaged checkpoint before a step, else the oldest undamaged one, or None."""
    found = [path for path in checkpoints(run_dir) if whole(path)]
    earlier = [path for path in found if step_of(path) < step]
    return next(iter(earlier[-1:] + found[:1]), None)


def find_checkpoint(run: Path) -> Path:
    """``run`` if it is a file, the weights of a bundle, else the newest whole checkpoint of a run.

    Newer, damaged ones are reported on stderr, once.

    Raises:
        FileNotFoundError: there is none, or none that is whole.
    """
    if run.is_file():
        return run
    if not run.is_dir():
        raise FileNotFoundError(f"there is no run or checkpoint {run}")
    files = RunDirectory(run)
    if files.bundle.is_file():
        if files.weights.is_file():
            return files.weights
        raise FileNotFoundError(f"the bundle {run} is not whole: there is no {files.weights.name}")
    found = checkpoints(run)
    if not found and (runs := sorted(run.glob("*/checkpoints"))):
        raise FileNotFoundError(
            f"{run} is a folder of runs, not a run: name one, such as the last, {runs[-1].parent}"
        )
    if not found:
        raise FileNotFoundError(f"the run {run} has no checkpoint yet (in {run / 'checkpoints'})")
    if (newest := next(filter(is_whole, reversed(found)), None)) is None:
        raise FileNotFoundError(f"every checkpoint of {run} is damaged: put back a whole one")
    return newest


def find_checkpoints(run: Path, chosen: str | list[int]) -> list[Path]:
    """Those of a run: "newest", "all", or those after certain steps.

    Raises:
        FileNotFoundError: there is none, or none that is whole.
        ValueError: the run does not have one of them.
    """
    newest = find_checkpoint(run)
    if chosen == "newest":
        return [newest]
    every = {step_of(path): path for path in sorted(newest.parent.glob("step_*.ckpt"))}
    if not every:
        raise ValueError(f"there is no step_….ckpt beside {newest}: leave checkpoints=newest")
    if chosen == "all":
        return [*every.values()]
    if missing := [step for step in chosen if step not in every]:
        there = ", ".join(map(str, every))
        raise ValueError(f"the run has no checkpoint of step {missing[0]}, but of {there}")
    return [every[int(step)] for step in chosen]


def is_whole(path: Path) -> bool:
    """Whether a checkpoint is what was written; read once for each state of the file."""
    file = path.stat()
    return _is_whole(path, file.st_mtime_ns, file.st_size)


@cache
def _is_whole(path: Path, changed: int, size: int) -> bool:
    if whole(path):
        return True
    print(f"warning: {path} is damaged: it is not what was written", file=sys.stderr)
    return False
