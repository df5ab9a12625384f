"""unnoise-report: one page that tells what runs did."""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from unnoise.cli.checks import folder_problems
from unnoise.config.problems import Problem
from unnoise.report.page import write
from unnoise.report.reader import find_runs
from unnoise.runs.layout import RunDirectory

EXAMPLES = """examples:
  unnoise-report outputs/sprites/2026-01-31_12-00-00_1a2b3c4d   one run: its report.html
  unnoise-report outputs                                        all runs below: outputs/report.html
  unnoise-report outputs/sprites outputs/sprites_flow -o both.html
"""


def main() -> None:
    """The command's entry point."""
    parser = argparse.ArgumentParser(
        prog="unnoise-report",
        description="Write one page, which needs no network, of a run or of many to compare.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "paths", nargs="*", metavar="path", help="a run directory, or a folder with runs below it"
    )
    parser.add_argument("-o", "--out", metavar="FILE", help="the page; else report.html in there")
    arguments = parser.parse_args()
    named, out = typed(arguments.paths)
    started = time.monotonic()
    folders, found = runs_below(named)
    if arguments.out or out:
        page = Path(arguments.out or str(out))
        found += _page_problems(page)
    elif folders:
        page = default_page(named, folders)
        found += _page_problems(page)
    if found:
        print("no page was written:", file=sys.stderr)
        print("\n".join(f"  {problem}" for problem in found), file=sys.stderr)
        sys.exit(2)
    try:
        runs = write(page, folders)
    except OSError as error:
        sys.exit(f"no page was written: {error}")
    told = f"{len(runs)} runs" if len(runs) > 1 else runs[0].name
    size = page.stat().st_size / 1e6
    print(f"{told}: {size:.1f} MB in {time.monotonic() - started:.1f} s")
    for problem in [(run, each) for run in runs for each in run.problems]:
        print(f"  {os.path.relpath(problem[0].folder)}: {problem[1]}", file=sys.stderr)
    print(f"  {os.path.relpath(page)}")


def typed(paths: Sequence[str]) -> tuple[list[Path], str | None]:
    """Paths as they are, or as the other commands take them: run=…, runs=[…,…], out=…."""
    named: list[Path] = []
    out = None
    for each in paths:
        key, _, value = each.partition("=")
        if key == "out" and value:
            out = value
        elif key in ("run", "runs") and value:
            named += [Path(part.strip()) for part in value.strip("[]").split(",") if part.strip()]
        else:
            named.append(Path(each))
    return named, out


def runs_below(paths: Sequence[Path]) -> tuple[list[Path], list[Problem]]:
    """The runs at or below all paths, each once, and what is wrong with the paths."""
    if not paths:
        return [], [
            Problem("path", "missing: name a run directory, or a folder with runs below it")
        ]
    folders: dict[Path, Path] = {}
    found: list[Problem] = []
    for path in paths:
        try:
            for folder in find_runs(path):
                folders.setdefault(folder.resolve(), folder)
        except FileNotFoundError as error:
            found.append(Problem("path", str(error)))
    return list(folders.values()), found


def default_page(paths: Sequence[Path], folders: Sequence[Path]) -> Path:
    """In the run if there is one only, else in the folder that was named, or above all of them."""
    if len(folders) == 1:
        return RunDirectory(folders[0]).report
    return (
        Path(os.path.relpath(os.path.commonpath([path.resolve() for path in paths])))
        / "report.html"
    )


def _page_problems(page: Path) -> list[Problem]:
    if page.suffix not in (".html", ".htm"):
        return [Problem("out", f"{page} must end in .html")]
    if page.is_dir():
        return [Problem("out", f"{page} is a folder")]
    return list(folder_problems("out", page.parent))
