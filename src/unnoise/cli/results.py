"""Where the results of a run are, for the person who started it."""

import sys
from pathlib import Path

from unnoise.runs.layout import RunDirectory, shown


def print_results(run_dir: Path, name: str, took: float) -> None:
    """Say how the run ended and where its results are, its page among them."""
    from unnoise.report.page import write
    from unnoise.runs.manifest import pruned

    files = RunDirectory(run_dir)
    results = {"report": files.report}
    try:
        write(files.report, [run_dir])
    except Exception as error:  # does not undo the training
        print(f"warning: no report was written: {error!r}", file=sys.stderr)
        results = {}
    why, (minutes, seconds) = pruned(run_dir), divmod(int(took), 60)
    ended = "done in" if why is None else f"pruned: {why}, after"
    print(f"\n{name}: {ended} {minutes} min {seconds:02d} s")
    for title, path in (results | files.results()).items():
        print(f"  {title:<16} {shown(path)}")
    print(f"  {'draw more':<16} unnoise-sample run={shown(run_dir)}")
