"""Searches: what Optuna's study behind a sweep has tried, and what is left of it."""

import json
import logging
import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from unnoise.config.problems import ConfigError

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial


TRIAL = "UNNOISE_TRIAL"
"""Where in the environment a job's trial is told to its ranks, for ``training.pruning``."""


@dataclass(frozen=True)
class Search:
    """The study that a sweeper keeps, with ``n_trials`` trials that it is to have in all."""

    storage: str | None
    name: str | None
    n_trials: int
    maximize: bool

    def params(self) -> list[tuple[str, ...]]:
        """What was tried so far, each once, as overrides."""
        return list(dict.fromkeys(_texts(trial) for trial in self._trials() if trial.params))

    def go_on(self, is_running: Callable[[tuple[str, ...]], bool]) -> int | None:
        """Have the study try again what was interrupted or failed.

        Returns:
            How many trials are left; None where the study is not kept.

        Raises:
            ConfigError: the storage cannot be opened.
        """
        if self.storage is None or self.name is None:
            return None
        from optuna.trial import TrialState

        _make_room(self.storage)
        study = self._study(create=True)
        assert study is not None
        done = {_texts(t) for t in study.trials if t.state == TrialState.COMPLETE}
        under_way = set()
        again: dict[tuple[str, ...], dict[str, Any]] = {}
        for trial in study.trials:
            if trial.state == TrialState.RUNNING:
                if is_running(_texts(trial)):
                    under_way.add(_texts(trial))
                    continue
                study._storage.set_trial_state(trial._trial_id, TrialState.FAIL)
            if trial.state in (TrialState.RUNNING, TrialState.FAIL) and trial.params:
                again[_texts(trial)] = trial.params
        waiting = [t.system_attrs.get("fixed_params") for t in study.trials if _waits(t)]
        for texts, params in again.items():
            if texts not in done | under_way and params not in waiting:
                with warnings.catch_warnings(action="ignore"):  # that this is experimental
                    study.enqueue_trial(params)
        return max(0, self.n_trials - len(done | under_way))

    def told(self, tried: int) -> str:
        """What the ledger says of the study."""
        if self.storage is None or self.name is None:
            return "a search without hydra.sweeper.storage and study_name is forgotten when it ends"
        found = f"study {self.name} in {self.storage}: {tried} of {self.n_trials} trials"
        return found if tried < self.n_trials else f"{found}; hydra.sweeper.n_trials=… adds more"

    def trial(self, overrides: Sequence[str]) -> dict[str, Any] | None:
        """The trial that a job with these overrides is, as ``training.pruning`` looks for it."""
        from optuna.trial import TrialState

        for trial in reversed(self._trials()):
            if trial.state == TrialState.RUNNING and set(_texts(trial)) <= set(overrides):
                return {"storage": self.storage, "study": self.name, "id": trial._trial_id}
        return None

    def _trials(self) -> "list[FrozenTrial]":
        study = self._study(create=False)
        return [] if study is None else study.trials

    def _study(self, create: bool) -> "Study | None":
        if self.storage is None or self.name is None or not (create or _is_there(self.storage)):
            return None
        import optuna

        optuna.logging.set_verbosity(logging.WARNING)
        try:
            if create:
                way = "maximize" if self.maximize else "minimize"
                return optuna.create_study(
                    storage=self.storage, study_name=self.name, direction=way, load_if_exists=True
                )
            return optuna.load_study(study_name=self.name, storage=self.storage)
        except KeyError:
            return None
        except Exception as error:  # of whatever database it is
            told = " ".join(str(error).split())[:200]
            raise ConfigError(f"hydra.sweeper.storage: {self.storage}: {told}") from error


def of(sweeper: DictConfig) -> Search | None:
    """The search that a sweeper's config asks for; None of a grid."""
    if str(sweeper._target_).endswith(".BasicSweeper"):
        return None
    storage, name = sweeper.get("storage"), sweeper.get("study_name")
    return Search(
        storage=None if storage is None else str(storage),
        name=None if name is None else str(name),
        n_trials=int(sweeper.get("n_trials", 0)),
        maximize="maximize" in str(sweeper.get("direction")),
    )


@contextmanager
def told(trial: dict[str, Any] | None) -> Iterator[None]:
    """Let the ranks of a job know which trial it is."""
    if trial is not None:
        os.environ[TRIAL] = json.dumps(trial)
    try:
        yield
    finally:
        os.environ.pop(TRIAL, None)


def _texts(trial: "FrozenTrial") -> tuple[str, ...]:
    """As the sweeper hands them to a job."""
    return tuple(f"{name}={value}" for name, value in trial.params.items())


def _waits(trial: "FrozenTrial") -> bool:
    return trial.state.name == "WAITING"


def _file(storage: str) -> Path | None:
    found = re.fullmatch(r"sqlite:///([^?]+)(\?.*)?", storage)
    return Path(found[1]) if found else None


def _is_there(storage: str) -> bool:
    file = _file(storage)
    return file is None or file.exists()


def _make_room(storage: str) -> None:
    file = _file(storage)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
