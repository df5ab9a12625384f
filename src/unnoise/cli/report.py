"""unnoise-report: one page about runs, to read and to compare."""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from unnoise.cli.terminal import any_encoding
from unnoise.files import file_fault
from unnoise.report.board import Board
from unnoise.report.page import write
from unnoise.report.reader import runs_below
from unnoise.runs.layout import RunDirectory

EXAMPLES = """examples:
  unnoise-report outputs/sprites/2026-01-31_12-00-00_1a2b3c4d   one run: its report.html
  unnoise-report outputs                                        all runs below: outputs/report.html
  unnoise-report outputs/sprites outputs/sprites_flow -o both.html
  unnoise-report outputs --watch                                served, and fresh while they train
"""


def main() -> None:
    """The command's entry point."""
    any_encoding()
    about = "Write one page, which needs no network, of a run or of many to compare."
    parser = runs_parser("unnoise-report", about, EXAMPLES)
    parser.add_argument("-o", "--out", metavar="FILE", help="the page; else report.html in there")
    watch = "serve the page to this machine's browsers instead, and keep it fresh"
    parser.add_argument("--watch", action="store_true", help=watch)
    parser.add_argument("--port", type=int, help="of --watch, else 8010; 0: any free one")
    arguments = parser.parse_args()
    paths, out = typed(arguments.paths)
    out, started = os.path.expanduser(arguments.out or out), time.monotonic()
    folders, faults = runs_below(paths)
    above = Path(os.path.commonpath([path.resolve() for path in paths] or [Path.cwd()]))
    if arguments.watch:
        if out:
            faults.append("out: --watch writes no page")
        if faults:
            stop("nothing is served:", faults)
        serve(paths, above, 8010 if arguments.port is None else arguments.port)
        return
    if arguments.port is not None:
        faults.append("--port: is for --watch")
    if len(folders) == 1:
        page = RunDirectory(folders[0]).report
    else:
        page = Path(os.path.relpath(above)) / "report.html"
    page = Path(out) if out else page
    if (out or folders) and (fault := file_fault(page, ".html")):
        faults.append(f"out: {fault}")
    if faults:
        stop("no page was written:", faults)
    try:
        runs = write(page, folders)
    except OSError as error:
        sys.exit(f"no page was written: {error}")
    what = f"{len(runs)} runs" if len(runs) > 1 else runs[0].name
    print(f"{what}: {page.stat().st_size / 1e6:.1f} MB in {time.monotonic() - started:.1f} s")
    for run in runs:
        for problem in run.problems:
            print(f"  {os.path.relpath(run.folder)}: {problem}", file=sys.stderr)
    print(f"  {os.path.relpath(page)}")


def serve(paths: Sequence[Path], home: Path, port: int) -> None:
    """Serve the runs until Ctrl-C."""
    try:
        board = Board(paths, home, port)
    except (OSError, OverflowError) as error:
        stop("nothing is served:", [f"--port {port}: {error}; --port 0 takes any that is free"])
    print(f"{board.address}  until Ctrl-C", flush=True)
    try:
        board.serve_forever()
    except KeyboardInterrupt:
        print()


def runs_parser(name: str, about: str, examples: str) -> argparse.ArgumentParser:
    """The parser of a command that takes run directories."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(name, None, about, examples, formatter_class=raw)
    of = "a run directory, or a folder with runs below it"
    parser.add_argument("paths", nargs="*", metavar="path", help=of)
    return parser


def typed(paths: Sequence[str]) -> tuple[list[Path], str]:
    """Paths as they are, or as the other commands take them: run=…, runs=[…,…]; and out=…."""
    named, out = [], ""
    for each in paths:
        key, _, value = each.partition("=")
        if key == "out" and value:
            out = value
        elif key in ("run", "runs") and value:
            named += [part.strip() for part in value.strip("[]").split(",") if part.strip()]
        else:
            named.append(each)
    return [Path(each).expanduser() for each in named], os.path.expanduser(out)


def stop(heading: str, faults: Sequence[str]) -> NoReturn:
    """Print what is wrong, and end with status 2."""
    print(heading, *(f"  {fault}" for fault in faults), sep="\n", file=sys.stderr)
    sys.exit(2)
