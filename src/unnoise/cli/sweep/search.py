"""Searches: what Optuna's study behind a sweep has tried, and what is left of it."""

import json
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from unnoise.cli.sweep.study import created, texts, trials

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


TRIAL = "UNNOISE_TRIAL"
"""Where in the environment the ranks of a job find its trial, for ``training.pruning``."""


@dataclass(frozen=True)
class Search:
    """The study that a sweeper keeps, with ``n_trials`` trials that it is to have in all."""

    storage: str | None
    name: str | None
    n_trials: int
    maximize: bool

    def params(self) -> list[tuple[str, ...]]:
        """What was tried so far, each once, as overrides."""
        return list(dict.fromkeys(texts(trial) for trial in self._trials() if trial.params))

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

        study = created(self.storage, self.name, self.maximize)
        done = {texts(t) for t in study.trials if t.state == TrialState.COMPLETE}
        under_way = set()
        again: dict[tuple[str, ...], dict[str, Any]] = {}
        for trial in study.trials:
            if trial.state == TrialState.RUNNING:
                if is_running(texts(trial)):
                    under_way.add(texts(trial))
                    continue
                study._storage.set_trial_state(trial._trial_id, TrialState.FAIL)
            if trial.state in (TrialState.RUNNING, TrialState.FAIL) and trial.params:
                again[texts(trial)] = trial.params
        waiting = [
            t.system_attrs.get("fixed_params") for t in study.trials if t.state.name == "WAITING"
        ]
        for overrides, params in again.items():
            if overrides not in done | under_way and params not in waiting:
                with warnings.catch_warnings(action="ignore"):  # that this is experimental
                    study.enqueue_trial(params)
        return max(0, self.n_trials - len(done | under_way))

    def line(self, tried: int) -> str:
        """What the summary says of the study."""
        if self.storage is None or self.name is None:
            return "a search without hydra.sweeper.storage and study_name is forgotten when it ends"
        found = f"study {self.name} in {self.storage}: {tried} of {self.n_trials} trials"
        return found if tried < self.n_trials else f"{found}; hydra.sweeper.n_trials=… adds more"

    def trial(self, overrides: Sequence[str]) -> dict[str, Any] | None:
        """The trial that a job with these overrides is, as ``training.pruning`` looks for it."""
        from optuna.trial import TrialState

        for trial in reversed(self._trials()):
            if trial.state == TrialState.RUNNING and set(texts(trial)) <= set(overrides):
                return {"storage": self.storage, "study": self.name, "id": trial._trial_id}
        return None

    def _trials(self) -> "list[FrozenTrial]":
        if self.storage is None or self.name is None:
            return []
        return trials(self.storage, self.name)


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
def passed_on(trial: dict[str, Any] | None) -> Iterator[None]:
    """Let the ranks of a job know which trial it is."""
    if trial is not None:
        os.environ[TRIAL] = json.dumps(trial)
    try:
        yield
    finally:
        os.environ.pop(TRIAL, None)
