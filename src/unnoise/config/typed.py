"""What a person types: ~ for the home folder, and how to quote a value for Hydra in a shell."""

import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from unnoise.runs.layout import RunDirectory

_HOME = re.compile(r"(?:(?<=[=\[,])|(?<==sqlite:///)|(?<=file://))~(?=/|$)")
"""A ~ that begins a value, unquoted: Hydra could not read it."""
_SPECIAL = re.compile(r"([\\()\[\]{}:=,\s])")


def at_home(override: str) -> str:
    """An override with ~ expanded where a value begins with it, as a shell does for ``run=~/x``."""
    home = escaped(os.path.expanduser("~"))
    return _HOME.sub(lambda _: home, override)


def escaped(value: str) -> str:
    """A text as Hydra reads it unquoted."""
    return _SPECIAL.sub(r"\\\1", value)


def in_full(overrides: Sequence[str]) -> list[str]:
    """Overrides with ~ expanded; ``autoencoder=RUN`` and ``from=RUN`` as those they stand for."""
    return [each for override in overrides for each in _of_run(at_home(override))]


def _of_run(override: str) -> list[str]:
    """``autoencoder=RUN``, which names no option of the group but a run, and ``from=RUN``.

    RUN is the path of a run or a checkpoint, or several with commas between. A run stands for its
    newest checkpoint of this moment.
    """
    key, _, value = override.partition("=")
    if key == "from":
        group, option = "initial", "run"
    elif key == "autoencoder" and all(map(_is_run, value.split(","))):
        group, option = key, "trained"
    else:
        return [override]
    return [f"{group}={option}", f"{group}.run={','.join(map(_newest, value.split(',')))}"]


def _is_run(value: str) -> bool:
    return os.sep in value or value.endswith(".ckpt") or (Path(value) / "checkpoints").is_dir()


def _newest(run: str) -> str:
    saved = RunDirectory(Path(run)).saved()
    return str(saved[-1]) if saved else run


def expanded(tree: Any) -> Any:
    """A plain config in which each text that begins with ~/ begins with the home folder."""
    if isinstance(tree, dict):
        return {key: expanded(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [expanded(value) for value in tree]
    return os.path.expanduser(tree) if isinstance(tree, str) and tree.startswith("~/") else tree


def as_text(line: str) -> str | None:
    """``key=value`` as it is to be typed in a shell for the value to be that text.

    None where the key cannot be read either.
    """
    key, equals, value = line.partition("=")
    escaped = re.sub(
        r'(\\*)("|$)', lambda found: found[1] * 2 + found[2].replace('"', r"\""), value
    )
    quoted = f'{key}="{escaped}"'
    try:
        (read,) = OverridesParser.create().parse_overrides([quoted])
    except HydraException:
        return None
    whole = equals and read.key_or_group and read.value() == value
    return in_shell(quoted) if whole else None


def in_shell(argument: str) -> str:
    """An argument as it is to be typed in a shell."""
    return shlex.quote(argument).replace("'\"'\"'", r"'\''")
