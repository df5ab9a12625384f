"""The checkpoints of a run directory: which there are, and which of them is whole."""

import sys
from functools import cache
from pathlib import Path

from unnoise.files import whole


class DamagedCheckpoints(ValueError):
    """A run has checkpoints, but none of them is whole."""


def checkpoints(run_dir: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted((run_dir / "checkpoints").glob("step_*.ckpt"))


def step_of(checkpoint: Path) -> int:
    """The optimizer step a checkpoint was saved at."""
    return int(checkpoint.stem.removeprefix("step_"))


def newest_whole(run_dir: Path) -> Path | None:
    """The newest checkpoint of a run that is whole; None if it has none at all.

    Newer ones, which are damaged, are named on stderr, and are called ``….ckpt.damaged`` from then
    on.

    Raises:
        DamagedCheckpoints: there are checkpoints, and none is whole. They keep their names, so that
            the run cannot be taken for one that has not started.
    """
    damaged: list[Path] = []
    for path in reversed(checkpoints(run_dir)):
        if whole(path):
            for each in damaged:
                aside = each.rename(f"{each}.damaged")
                print(
                    f"warning: {each} is damaged (it is not what was written) and is now called "
                    f"{aside.name}; {path.name} before it is taken",
                    file=sys.stderr,
                )
            return path
        damaged.append(path)
    if damaged:
        names = ", ".join(path.name for path in damaged)
        raise DamagedCheckpoints(
            f"every checkpoint of {run_dir} is damaged ({names}): put back a whole one, or move "
            f"{run_dir / 'checkpoints'} away to start at step 0"
        )
    return None


def find_checkpoint(run: Path) -> Path:
    """``run`` itself if it is a file, else the newest whole checkpoint of the run directory.

    Newer ones that are damaged are named on stderr, once.

    Raises:
        FileNotFoundError: there is none, or none that is whole.
    """
    if run.is_file():
        return run
    if not run.is_dir():
        raise FileNotFoundError(f"there is no run or checkpoint {run}")
    found = sorted((run / "checkpoints").glob("step_*.ckpt"))
    if not found and (runs := sorted(run.glob("*/checkpoints"))):
        raise FileNotFoundError(
            f"{run} is a folder of runs, not a run: name one, such as the last, {runs[-1].parent}"
        )
    if not found:
        raise FileNotFoundError(f"the run {run} has no checkpoint yet (in {run / 'checkpoints'})")
    for path in reversed(found):
        if is_whole(path):
            return path
    raise FileNotFoundError(f"every checkpoint of {run} is damaged: put back a whole one")


def is_whole(path: Path) -> bool:
    """Whether a checkpoint is what was written; looked at once for each state of the file."""
    file = path.stat()
    return _digested(path, file.st_mtime_ns, file.st_size)


@cache
def _digested(path: Path, changed: int, size: int) -> bool:
    if whole(path):
        return True
    print(f"warning: {path} is damaged: it is not what was written", file=sys.stderr)
    return False
