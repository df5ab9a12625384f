"""unnoise-replay: send runs to Weights & Biases after they were trained."""

import sys

from unnoise.cli.report import runs_parser, stop, typed
from unnoise.cli.terminal import any_encoding
from unnoise.report.reader import runs_below
from unnoise.runs.layout import shown

ABOUT = """Send to Weights & Biases what run directories hold: config, manifest, every line of
metrics.jsonl at its step, the pictures, and how the run ended.

A run goes to the page whose id it keeps in wandb_id. Steps that this page has are not sent again;
of the last of these the page may lack some metrics. --new sends everything to a page of its own.
--offline cannot ask the server: it writes everything into one folder, and to sync that folder is
enough; the run's own folders in wandb/ hold nothing else."""
EXAMPLES = """examples:
  unnoise-replay run=outputs/sprites/2026-01-31_12-00-00_1a2b3c4d   one run
  unnoise-replay outputs/sprites                                    all runs below
  unnoise-replay outputs --offline                                  for wandb sync, later
"""


def main() -> None:
    """The command's entry point."""
    any_encoding()
    parser = runs_parser("unnoise-replay", ABOUT, EXAMPLES)
    parser.add_argument("--offline", action="store_true", help="write for wandb sync; no network")
    parser.add_argument("--new", action="store_true", help="a new page, and its id for the run")
    parser.add_argument("--project", help="project of runs whose config names none (unnoise)")
    arguments = parser.parse_args()
    folders, faults = runs_below(typed(arguments.paths)[0])
    if faults:
        stop("nothing was sent:", faults)
    from unnoise.training.logging.replay import send

    failed = False
    for folder in folders:
        try:
            lines = send(folder, arguments.offline, arguments.new, arguments.project)
            print(f"{shown(folder)}: {lines} lines")
        except Exception as error:  # of the next run it may be different
            print(f"{shown(folder)} was not sent: {' '.join(str(error).split())}", file=sys.stderr)
            failed = True
    sys.exit(1 if failed else 0)
