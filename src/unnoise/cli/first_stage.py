"""The autoencoder of a run in a latent: one that is there, or trained before the run begins."""

from argparse import Namespace
from typing import Any

from unnoise.cli.hydra_app import folders
from unnoise.config.problems import Check, Problem, errors_in
from unnoise.distributed.environment import place


def find_or_train_autoencoder(
    arguments: Namespace, config: dict[str, Any], found: list[Problem], check: Check
) -> str | None:
    """``autoencoder=RUN`` for a config that names a ``first_stage`` but no run of one.

    RUN is a finished run of that experiment, with the keys of ``SHARED`` that were typed; where
    there is none, it is trained, in a process of its own, or goes on. A run that is resumed holds
    its autoencoder itself. None if the config needs none, or is wrong in other ways, which are to
    be shown first.

    Raises:
        SystemExit: its training ended early, with its status.
    """
    if config.get("first_stage") is None:
        return None
    from unnoise.cli import wanted  # needs PyTorch, which --help does not

    if (name := wanted.lacking_autoencoder(config)) is None:
        return None
    if isinstance(config.get("resume"), str):
        return f"autoencoder={config['resume']}"
    others = [each for each in (*found, *check(config)) if each.key != wanted.LACKING]
    if errors_in(others) or place().world_size > 1:
        return None
    chosen = [f"experiment={name}", *wanted.shared(arguments.overrides)]
    run = wanted.find_or_train(chosen, folders(arguments), "no autoencoder is given")
    if run is None:
        return None
    wanted.say(run, "the autoencoder")
    return f"autoencoder={run}"
