"""The autoencoder of a run in a latent: one that is there, or trained before the run begins."""

import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from unnoise.cli.hydra_app import folders
from unnoise.config.compose import check_command_line
from unnoise.config.identity import OUTPUTS, identity_of, root_of
from unnoise.config.problems import Check, Problem, errors_in
from unnoise.distributed.environment import place
from unnoise.runs.layout import shown

SHARED = ("data", "trainer", "logger", "precision", "workers", "seed")
"""Keys whose overrides are for both runs."""


def find_or_train(
    arguments: Namespace, config: dict[str, Any], found: list[Problem], check: Check
) -> str | None:
    """``autoencoder=RUN`` for a config that names a ``first_stage`` but no run of one.

    RUN is a finished run of that experiment, with the keys of ``SHARED`` that were typed; where
    there is none, it is trained, in a process of its own, or goes on. A run that is resumed holds
    its autoencoder itself. None if the config needs none, or is wrong in other ways, which are to
    be told first.

    Raises:
        SystemExit: its training ended early, with its status.
    """
    name, autoencoder = config.get("first_stage"), config.get("autoencoder")
    if name is None or not isinstance(autoencoder, dict) or autoencoder.get("run") != "???":
        return None
    if isinstance(config.get("resume"), str):
        return f"autoencoder={config['resume']}"
    others = [each for each in (*found, *check(config)) if root_of(each.key) != "autoencoder"]
    if errors_in(others) or place().world_size > 1:
        return None
    chosen = [f"experiment={name}"]
    chosen += [each for each in arguments.overrides if root_of(each) in SHARED]
    first, wrong = check_command_line("train", chosen, folders(arguments), sweep=False)
    if first is None or errors_in(wrong):
        return None
    if (run := _finished(first)) is None:
        print(f"no autoencoder is given: training {' '.join(chosen)} first", flush=True)
        _train([*chosen, "resume=true"], arguments)
        run = _finished(first)
    if run is None:
        return None
    print(f"the autoencoder is that of {shown(run)}", flush=True)
    return f"autoencoder={run}"


def _finished(config: dict[str, Any]) -> Path | None:
    """The newest finished run of a config."""
    from unnoise.runs import manifest

    runs = sorted((OUTPUTS / config["name"]).glob(f"*_{identity_of(config)}"), reverse=True)
    return next((run for run in runs if "finished" in manifest.read(run)), None)


def _train(overrides: list[str], arguments: Namespace) -> None:
    start = "from unnoise.cli.train import main; main()"
    command = [sys.executable, "-c", start, *overrides]
    command += [f"--config-dir={folder}" for folder in folders(arguments)]
    with subprocess.Popen(command) as process:
        try:
            status = process.wait()
        except BaseException:
            process.terminate()
            raise
    if status:
        sys.exit(status if status > 0 else 128 - status)
