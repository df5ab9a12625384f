"""Where the results of a run are, for the person who started it."""

import sys
from pathlib import Path

from unnoise.runs.layout import RunDirectory, shown


def print_results(run_dir: Path, name: str, took: float) -> None:
    """Say how the run ended and where its results are, its page among them."""
    from unnoise.runs.manifest import pruned

    why, (minutes, seconds) = pruned(run_dir), divmod(int(took), 60)
    ended = "done in" if why is None else f"pruned: {why}, after"
    print(f"\n{name}: {ended} {minutes} min {seconds:02d} s")
    for title, path in (report(run_dir) | RunDirectory(run_dir).results()).items():
        print(f"  {title:<16} {shown(path)}")
    print(f"  {'draw more':<16} unnoise-sample run={shown(run_dir)}")


def report(run_dir: Path) -> dict[str, Path]:
    """Write the page of the run; that it could not be written does not undo the training."""
    from unnoise.report.page import write

    path = RunDirectory(run_dir).report
    try:
        write(path, [run_dir])
    except Exception as error:
        print(f"warning: no report was written: {error!r}", file=sys.stderr)
        return {}
    return {"report": path}
