"""The command line: options and overrides, in any order, as they were typed."""

import re
import sys
from argparse import Namespace
from functools import cache

from hydra._internal.utils import get_args_parser

from unnoise.cli.terminal import any_encoding, undecoded
from unnoise.config.typed import escaped, in_full
from unnoise.models.hub.remote import PREFIX, fetched

RUNS = ("run", "weak", "from", "autoencoder")
"""Keys that name runs, which may lie on the hub."""
_ON_HUB = re.compile(rf"(?<=[=\[,]){PREFIX}[^],\s]+")


def typed() -> Namespace:
    """What was typed, with ~ and short forms in full, and runs of the hub fetched."""
    any_encoding()
    arguments = get_args_parser().parse_intermixed_args()
    if odd := next(filter(undecoded, sys.argv), None):
        encoding = sys.getfilesystemencoding()
        sys.exit(f"{odd} is not {encoding}, this terminal's encoding: set LC_ALL=C.UTF-8")
    if arguments.config_path:
        sys.exit("--config-path would hide the shipped configs: use --config-dir, which adds yours")
    if arguments.experimental_rerun:
        sys.exit("--experimental-rerun reads a pickle, which can run anything: it is not supported")
    if not only_shows(arguments):
        arguments.overrides = list(map(_here, arguments.overrides))
    arguments.overrides = in_full(arguments.overrides)
    return arguments


@cache
def _here(override: str) -> str:
    """An override with the folder of each hf://user/name, which is fetched once.

    Raises:
        SystemExit: one cannot be fetched.
    """
    key = override.partition("=")[0]
    if key not in RUNS:
        return override
    try:
        return _ON_HUB.sub(lambda name: escaped(str(fetched(name[0]))), override)
    except ValueError as error:
        print(f"{key}: {error}", file=sys.stderr)
        sys.exit(2)


def is_sweep() -> bool:
    """Whether the command line is for several runs."""
    return bool(typed().multirun) and not only_shows(typed())


def only_shows(arguments: Namespace) -> bool:
    """Whether something is to be shown rather than to be run."""
    options = vars(arguments)
    shows = ("help", "hydra_help", "cfg", "info", "shell_completion")
    return any(options[name] for name in shows)
