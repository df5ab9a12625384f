"""Runs that a command needs: those that are there, or trained before it begins."""

import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unnoise.cli.command import stop_if_wrong
from unnoise.config.compose import check_command_line
from unnoise.config.identity import OUTPUTS, identity_of, root_of
from unnoise.config.problems import Problem, errors_in
from unnoise.config.typed import in_full
from unnoise.runs import manifest
from unnoise.runs.layout import shown
from unnoise.runs.wanted import Wanted

SHARED = ("data", "trainer", "logger", "precision", "workers", "seed")
"""Keys whose overrides are for all runs of a command."""
LACKING = "autoencoder.run"
"""The key that is missing where an autoencoder is to be found or trained."""
Folders = Sequence[str]


def shared(overrides: Sequence[str]) -> list[str]:
    """The overrides of a command that are for the runs that it needs."""
    return [each for each in overrides if root_of(each) in SHARED]


def composed(overrides: Sequence[str], folders: Folders) -> tuple[dict[str, Any], list[Problem]]:
    """The config of a training, and what is wrong with it."""
    config, found = check_command_line("train", in_full(overrides), folders, sweep=False)
    if config is None:
        return {}, found
    from unnoise.training.check import problems_of

    return config, [*found, *problems_of(config)]


def checked(
    wanted: Wanted, more: Sequence[str], folders: Folders, fixed: bool = False
) -> tuple[dict[str, Any], list[Problem]]:
    """The config of a run that is wanted, and what is wrong with it and the one it starts from.

    Its steps are ``fixed``, or those that a time will allow.
    """
    found = [] if wanted.first is None else checked(wanted.first, more, folders, fixed)[1]
    steps = [] if fixed else wanted.of_steps(1000)
    config, own = composed([*wanted.train, *more, *steps], folders)
    if lacking_autoencoder(config):  # it is trained first
        own = [each for each in own if each.key != LACKING]
    return config, [*found, *errors_in(own)]


def lacking_autoencoder(config: dict[str, Any]) -> str | None:
    """The experiment whose autoencoder a config takes, if it names no run of one."""
    autoencoder = config.get("autoencoder")
    lacking = isinstance(autoencoder, dict) and autoencoder.get("run") == "???"
    return config.get("first_stage") if lacking else None


def finished(config: dict[str, Any]) -> Path | None:
    """The newest finished run of a config."""
    runs = sorted((OUTPUTS / config["name"]).glob(f"*_{identity_of(config)}"), reverse=True)
    return next((run for run in runs if "finished" in manifest.read(run)), None)


def find_or_train(overrides: Sequence[str], folders: Folders, why: str) -> Path | None:
    """A finished run of some overrides: one that is there, or trained now, or gone on with.

    Raises:
        SystemExit: the overrides are wrong, or its training ended early, with its status.
    """
    chosen = in_full(overrides)
    config, found = check_command_line("train", chosen, folders, sweep=False)
    if errors := errors_in(found):
        print(f"{why}: {' '.join(overrides)}", flush=True)
        stop_if_wrong(errors)
    assert config is not None
    if (run := finished(config)) is None:
        print(f"{why}: training {' '.join(overrides)} first", flush=True)
        train([*chosen, "resume=true"], folders)
        run = finished(config)
    return run


def train(overrides: Sequence[str], folders: Folders) -> None:
    """unnoise-train in a process of its own; SystemExit if it ends early, with its status."""
    with training(in_full(overrides), folders) as process:
        status = process.wait()
    if status:
        sys.exit(status if status > 0 else 128 - status)


@contextmanager
def training(
    overrides: Sequence[str], folders: Folders, quiet: bool = False
) -> Iterator[subprocess.Popen[bytes]]:
    """unnoise-train, which ends with this process; a quiet one has a pipe for what is wrong."""
    start = "from unnoise.cli.train import main; main()"
    command = [sys.executable, "-c", start, *overrides]
    command += [f"--config-dir={folder}" for folder in folders]
    out, error = (subprocess.DEVNULL, subprocess.PIPE) if quiet else (None, None)
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        with subprocess.Popen(command, stdout=out, stderr=error) as process:
            try:
                yield process
            except BaseException:
                process.terminate()
                raise
    finally:
        signal.signal(signal.SIGTERM, before)


def say(run: Path, what: str) -> None:
    """Which run it is."""
    print(f"{what} is {shown(run)}", flush=True)
