"""unnoise-replay: send runs to Weights & Biases after they were trained."""

import argparse
import os
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from unnoise.cli.report import runs_below, typed
from unnoise.files import write_durably
from unnoise.runs.layout import RunDirectory
from unnoise.untrusted import load_yaml

if TYPE_CHECKING:
    from unnoise.training.logging.wandb import WeightsAndBiases

DESCRIPTION = """Send to Weights & Biases what run directories hold: config, manifest, every line
of metrics.jsonl at its step, the pictures, and how the run ended.

A run goes to the page whose id it keeps in wandb_id, and steps which that page has are not sent
again; of the last of these the page may lack some metrics. --new sends everything to a page of
its own. --offline cannot ask the server: it writes everything into one folder, and to sync that
folder is enough; the run's own folders in wandb/ hold nothing else."""
EXAMPLES = """examples:
  unnoise-replay run=outputs/sprites/2026-01-31_12-00-00_1a2b3c4d   one run
  unnoise-replay outputs/sprites                                    all runs below
  unnoise-replay outputs --offline                                  for wandb sync, later
"""
TAKEN = ("project", "entity", "group", "tags", "notes", "artifact", "init_timeout")
"""What of the run's own logger is kept, if that was Weights & Biases."""


def main() -> None:
    """The command's entry point."""
    parser = argparse.ArgumentParser(
        prog="unnoise-replay",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "paths", nargs="*", metavar="path", help="a run directory, or a folder with runs below it"
    )
    parser.add_argument("--offline", action="store_true", help="write for wandb sync; no network")
    parser.add_argument("--new", action="store_true", help="a new page, and its id for the run")
    parser.add_argument("--project", help="where runs are filed that do not say (unnoise)")
    arguments = parser.parse_args()
    folders, found = runs_below(typed(arguments.paths)[0])
    if found:
        print("nothing was sent:", file=sys.stderr)
        print("\n".join(f"  {problem}" for problem in found), file=sys.stderr)
        sys.exit(2)
    failed = [not _send(folder, arguments) for folder in folders]
    sys.exit(1 if any(failed) else 0)


def _send(folder: Path, arguments: argparse.Namespace) -> bool:
    """Whether a run could be sent; says so either way."""
    from unnoise.runs.lock import held
    from unnoise.training.logging.replay import replay

    shown = os.path.relpath(folder)
    try:
        with held(folder):
            board = _board(folder, arguments)
            if arguments.new:
                name = uuid.uuid4().hex[:8]
                write_durably(RunDirectory(folder).wandb_id, lambda path: path.write_text(name))
            lines = replay(folder, board)
    except Exception as error:  # of the next run it may be different
        print(f"{shown} was not sent: {' '.join(str(error).split())}", file=sys.stderr)
        return False
    print(f"{shown}: {lines} lines")
    return True


def _board(folder: Path, arguments: argparse.Namespace) -> "WeightsAndBiases":
    """The page as the run's config has it.

    Raises:
        ValueError: it is online and there are no credentials.
    """
    from unnoise.training.logging.wandb import WeightsAndBiases

    path = RunDirectory(folder).config
    config = load_yaml(path) if path.exists() else {}
    logger = config.get("logger", {})
    wandb = logger.get("_target_", "").endswith(".WeightsAndBiases")
    options: dict[str, Any] = {key: logger[key] for key in TAKEN if wandb and key in logger}
    if arguments.project:
        options["project"] = arguments.project
    mode: Literal["online", "offline"] = "offline" if arguments.offline else "online"
    return WeightsAndBiases(folder, config.get("name", folder.name), mode=mode, **options)
