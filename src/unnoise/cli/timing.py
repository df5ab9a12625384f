"""Runs of as many steps as fit into a time: a step is timed by a run that is thrown away."""

import json
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unnoise.cli.wanted import Folders, find_or_train, lacking_autoencoder, training
from unnoise.config.compose import check_command_line
from unnoise.config.identity import OUTPUTS, identity_of, root_of
from unnoise.config.typed import in_full
from unnoise.files import write_text
from unnoise.runs.identity import digest
from unnoise.runs.wanted import Spent, Wanted, spent

TIMED, ENOUGH = 41, 10.0
"""A step is timed by so many, or by those of so many seconds, but by two at least."""


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
    if name := lacking_autoencoder(_config(own, folders)):
        chosen = [f"experiment={name}", *more]
        own.append(f"autoencoder={find_or_train(chosen, folders, 'no autoencoder is given')}")
    steps = max(1, int(wanted.share * seconds / timed(own, folders).rate))
    return find_or_train([*own, *wanted.of_steps(steps)], folders, why)


def timed(overrides: Sequence[str], folders: Folders) -> Spent:
    """What a step takes on this machine, by some steps of a run that is thrown away.

    It is kept in ``outputs/timed.json``, so that the same budget stays the same number of steps,
    as long as the overrides mean the same config.
    """
    plain = [each for each in overrides if root_of(each) != "from"]
    file, key = OUTPUTS / "timed.json", digest([sorted(plain), platform.node()], 12)
    config = identity_of(_config(plain, folders))
    entry = _kept(file).get(key, {"config": None})
    if entry.get("config", config) != config:  # an older entry does not say it
        print(f"timing {' '.join(overrides)}", flush=True)
        found = _time(overrides, folders)
        entry = {**vars(found), "of": plain, "machine": platform.node(), "config": config}
        write_text(file, json.dumps(_kept(file) | {key: entry}, indent=2) + "\n")
    return Spent(*(entry[name] for name in ("steps", "seconds", "unit")))


def _config(overrides: Sequence[str], folders: Folders) -> dict[str, Any]:
    return check_command_line("train", in_full(overrides), folders, sweep=False)[0] or {}


def _kept(file: Path) -> dict[str, Any]:
    kept: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return kept


def _time(overrides: Sequence[str], folders: Folders) -> Spent:
    config = _config(overrides, folders)
    with tempfile.TemporaryDirectory(prefix="unnoise_") as folder:
        quick = [f"hydra.run.dir={folder}/run", f"until={TIMED}", "callbacks.metrics.every=1"]
        options = [*in_full(overrides), *quick, "logger=none", "resume=false"]
        with training(options, folders, quiet=True) as process:
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
