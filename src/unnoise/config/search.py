"""Searches: what the Optuna study behind a sweep has tried, and what is left of it."""

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
from unnoise.files import file_fault

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

TRIAL = "UNNOISE_TRIAL"  # Where in the environment the ranks of a job find its trial


@dataclass(frozen=True)
class Search:
    """A sweeper's study, with ``n_trials`` trials that it is to have in all.

    ``study`` is its (storage, name); None where it is forgotten when the search ends. All methods
    raise ConfigError if the storage cannot be opened.
    """

    study: tuple[str, str] | None
    n_trials: int
    maximize: bool

    def params(self) -> list[tuple[str, ...]]:
        """What was tried so far, each once, as overrides."""
        return list(dict.fromkeys(texts(trial) for trial in self._trials() if trial.params))

    def go_on(self, is_running: Callable[[tuple[str, ...]], bool]) -> int | None:
        """Have the study try again what was interrupted or failed.

        Returns:
            How many trials are left; None where the study is not kept.
        """
        study = self._study(make=True)
        if study is None:
            return None
        from optuna.trial import TrialState

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
        if self.study is None:
            return "a search without hydra.sweeper.storage and study_name is forgotten when it ends"
        storage, name = self.study
        found = f"study {name} in {storage}: {tried} of {self.n_trials} trials"
        return found if tried < self.n_trials else f"{found}; hydra.sweeper.n_trials=… adds more"

    @contextmanager
    def passed_on(self, overrides: Sequence[str]) -> Iterator[None]:
        """Let the ranks of the job with these overrides know which trial it is."""
        for trial in reversed(self._trials()):
            if trial.state.name == "RUNNING" and set(texts(trial)) <= set(overrides):
                assert self.study is not None
                storage, name = self.study
                of = {"storage": storage, "study": name, "id": trial._trial_id}
                os.environ[TRIAL] = json.dumps(of)
                break
        try:
            yield
        finally:
            os.environ.pop(TRIAL, None)

    def _trials(self) -> "list[FrozenTrial]":
        study = self._study(make=False)
        return [] if study is None else study.trials

    def _study(self, make: bool) -> "Study | None":
        """The study of a search that is kept; where there is none yet it is made, or None."""
        if self.study is None:
            return None
        import optuna

        storage, name = self.study
        sqlite = re.fullmatch(r"sqlite:///([^?]+)(\?.*)?", storage)
        if sqlite and not (file := Path(sqlite[1])).exists():
            if not make:
                return None
            if fault := file_fault(file):
                raise ConfigError(f"hydra.sweeper.storage: {fault}")
            file.parent.mkdir(parents=True, exist_ok=True)
        optuna.logging.set_verbosity(logging.WARNING)
        way = "maximize" if self.maximize else "minimize"
        try:
            if not make:
                return optuna.load_study(study_name=name, storage=storage)
            return optuna.create_study(
                storage=storage, study_name=name, direction=way, load_if_exists=True
            )
        except KeyError:
            return None
        except Exception as error:  # of whatever database it is
            why = " ".join(str(error).split())[:200]
            raise ConfigError(f"hydra.sweeper.storage: {storage}: {why}") from error


def search_of(sweeper: DictConfig) -> Search | None:
    """The search that a sweeper's config describes; None for a grid."""
    if str(sweeper._target_).endswith(".BasicSweeper"):
        return None
    storage, name = sweeper.get("storage"), sweeper.get("study_name")
    return Search(
        study=None if storage is None or name is None else (str(storage), str(name)),
        n_trials=int(sweeper.get("n_trials", 0)),
        maximize="maximize" in str(sweeper.get("direction")),
    )


def texts(trial: "FrozenTrial") -> tuple[str, ...]:
    """A trial's parameters as the overrides of its job."""
    return tuple(f"{name}={value}" for name, value in trial.params.items())
