"""Optuna's studies in their storage."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from unnoise.config.problems import ConfigError

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial


def trials(storage: str, name: str) -> "list[FrozenTrial]":
    """All trials of a study; none if there is no such study yet.

    Raises:
        ConfigError: the storage cannot be read.
    """
    file = _file(storage)
    if file is not None and not file.exists():
        return []
    import optuna

    with _opening(storage):
        try:
            return optuna.load_study(study_name=name, storage=storage).trials
        except KeyError:
            return []


def created(storage: str, name: str, maximize: bool) -> "Study":
    """The study, which is made if there is none.

    Raises:
        ConfigError: the storage cannot be opened.
    """
    import optuna

    if (file := _file(storage)) is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
    with _opening(storage):
        way = "maximize" if maximize else "minimize"
        return optuna.create_study(
            storage=storage, study_name=name, direction=way, load_if_exists=True
        )


def texts(trial: "FrozenTrial") -> tuple[str, ...]:
    """A trial's parameters as the overrides of its job."""
    return tuple(f"{name}={value}" for name, value in trial.params.items())


@contextmanager
def _opening(storage: str) -> Iterator[None]:
    import optuna

    optuna.logging.set_verbosity(logging.WARNING)
    try:
        yield
    except Exception as error:  # of whatever database it is
        why = " ".join(str(error).split())[:200]
        raise ConfigError(f"hydra.sweeper.storage: {storage}: {why}") from error


def _file(storage: str) -> Path | None:
    found = re.fullmatch(r"sqlite:///([^?]+)(\?.*)?", storage)
    return Path(found[1]) if found else None
