"""Ends runs of a search that are worse than others were at the same step."""

import json
import logging
import math
import os
from typing import Any

from lightning import Callback, LightningModule, Trainer

from unnoise.config.search import TRIAL
from unnoise.distributed import group as ranks
from unnoise.runs.manifest import Pruned
from unnoise.training.logging.jsonl import JsonLines


class Pruning(Callback):
    """Reports ``metric`` to the Optuna study of the search, and ends the run if it is pruned.

    After each validation the newest value is reported at the optimizer step; ``pruner`` (one of
    ``optuna.pruners``) decides. Does nothing in a run that is not part of a search.
    """

    def __init__(self, pruner: Any, metric: str) -> None:
        self.pruner, self.metric = pruner, metric

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Report on rank 0; all ranks end together.

        Raises:
            Pruned: the pruner ended the run.
        """
        reason = self._report(trainer) if trainer.is_global_zero and TRIAL in os.environ else None
        if (reason := ranks.broadcast(reason)) is not None:
            raise Pruned(reason)

    def _report(self, trainer: Trainer) -> str | None:
        """Why the run should end; None if it should continue."""
        import optuna

        (lines,) = (each for each in trainer.loggers if isinstance(each, JsonLines))
        value, step = lines.latest.get(self.metric, math.nan), trainer.global_step
        if math.isnan(value):
            return None
        optuna.logging.set_verbosity(logging.WARNING)
        names = json.loads(os.environ[TRIAL])
        study = optuna.load_study(
            names["study"], names["storage"], optuna.samplers.RandomSampler(), self.pruner
        )
        trial = optuna.trial.Trial(study, names["id"])
        trial.report(value, step)
        worse = step < trainer.max_steps and trial.should_prune()
        return f"{self.metric} {value:.4g} at step {step} is worse than others'" if worse else None
