"""Runs that a command needs: those that are there, or trained before it begins."""

import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unnoise.config.compose import check_command_line
from unnoise.config.identity import OUTPUTS, identity_of, root_of
from unnoise.config.problems import Problem, errors_in
from unnoise.config.typed import in_full
from unnoise.files import write_durably
from unnoise.runs import manifest
from unnoise.runs.identity import digest
from unnoise.runs.layout import shown
from unnoise.runs.wanted import Spent, Wanted, spent

SHARED = ("data", "trainer", "logger", "precision", "workers", "seed")
"""Keys whose overrides are for all runs of a command."""
TIMED, ENOUGH = 41, 10.0
"""A step is timed by so many, or by those of so many seconds, but by two at least."""
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


def faults(
    wanted: Wanted, more: Sequence[str], folders: Folders, fixed: bool = False
) -> list[Problem]:
    """What is wrong with a run that is wanted, and with the one that it starts from.

    Its steps are ``fixed``, or those that a time will allow.
    """
    found = [] if wanted.first is None else faults(wanted.first, more, folders, fixed)
    steps = [] if fixed else wanted.of_steps(1000)
    _, own = composed([*wanted.train, *more, *steps], folders)
    return [*found, *errors_in(own)]


def finished(config: dict[str, Any]) -> Path | None:
    """The newest finished run of a config."""
    runs = sorted((OUTPUTS / config["name"]).glob(f"*_{identity_of(config)}"), reverse=True)
    return next((run for run in runs if "finished" in manifest.read(run)), None)


def find_or_train(overrides: Sequence[str], folders: Folders, why: str) -> Path | None:
    """A finished run of some overrides: one that is there, or trained now, or gone on with.

    None if the overrides are wrong.

    Raises:
        SystemExit: its training ended early, with its status.
    """
    chosen = in_full(overrides)
    config, found = check_command_line("train", chosen, folders, sweep=False)
    if config is None or errors_in(found):
        return None
    if (run := finished(config)) is None:
        print(f"{why}: training {' '.join(overrides)} first", flush=True)
        train([*chosen, "resume=true"], folders)
        run = finished(config)
    return run


def train(overrides: Sequence[str], folders: Folders) -> None:
    """unnoise-train in a process of its own; SystemExit if it ends early, with its status."""
    with _training(in_full(overrides), folders) as process:
        try:
            status = process.wait()
        except BaseException:
            process.terminate()
            raise
    if status:
        sys.exit(status if status > 0 else 128 - status)


def trained_within(
    wanted: Wanted, seconds: float, more: Sequence[str], folders: Folders, why: str
) -> Path | None:
    """A finished run of as many steps as its training can take in ``seconds``; see ``Spent``."""
    own = [*wanted.train, *more]
    if wanted.first is not None:
        rest = (1 - wanted.share) * seconds
        if (first := trained_within(wanted.first, rest, more, folders, why)) is None:
            return None
        own.append(f"from={first}")
    steps = max(1, int(wanted.share * seconds / timed(own, folders).rate))
    return find_or_train([*own, *wanted.of_steps(steps)], folders, why)


def timed(overrides: Sequence[str], folders: Folders) -> Spent:
    """What a step takes on this machine, by some steps of a run that is thrown away.

    It is kept in ``outputs/timed.json``, so that the same budget stays the same number of steps.
    """
    plain = [each for each in overrides if root_of(each) != "from"]
    file, key = OUTPUTS / "timed.json", digest([sorted(plain), platform.node()], 12)
    kept = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    if key not in kept:
        print(f"timing {' '.join(overrides)}", flush=True)
        found = _time(overrides, folders)
        kept[key] = {**vars(found), "of": plain, "machine": platform.node()}
        text = json.dumps(kept, indent=2) + "\n"
        write_durably(file, lambda path: path.write_text(text, encoding="utf-8"))
    return Spent(*(kept[key][name] for name in ("steps", "seconds", "unit")))


def _time(overrides: Sequence[str], folders: Folders) -> Spent:
    config, _ = composed(overrides, folders)
    with tempfile.TemporaryDirectory(prefix="unnoise_") as folder:
        quick = [f"hydra.run.dir={folder}/run", f"until={TIMED}", "callbacks.metrics.every=1"]
        options = [*in_full(overrides), *quick, "logger=none", "resume=false"]
        with _training(options, folders, quiet=True) as process:
            found = None
            while process.poll() is None:
                time.sleep(0.5)
                found = spent(Path(folder) / "run", config["batch_size"], after=1)
                if found is not None and found.steps > 1 and found.seconds > ENOUGH:
                    process.terminate()
                    break
            error = process.communicate()[1]
        found = spent(Path(folder) / "run", config["batch_size"], after=1)
        if found is None:
            sys.exit(error.decode(errors="replace").strip() or "the training that was timed ended")
        return found


def _training(
    overrides: Sequence[str], folders: Folders, quiet: bool = False
) -> subprocess.Popen[bytes]:
    start = "from unnoise.cli.train import main; main()"
    command = [sys.executable, "-c", start, *overrides]
    command += [f"--config-dir={folder}" for folder in folders]
    out, error = (subprocess.DEVNULL, subprocess.PIPE) if quiet else (None, None)
    return subprocess.Popen(command, stdout=out, stderr=error)


def say(run: Path, what: str) -> None:
    """Which run it is."""
    print(f"{what} is {shown(run)}", flush=True)
