"""Ends the runs of a search that do worse than others did at the same step."""

import json
import logging
import math
import os
from typing import Any

from lightning import Callback, LightningModule, Trainer

from unnoise.distributed import group as ranks
from unnoise.runs.manifest import Pruned
from unnoise.training.logging.jsonl import JsonLines

TRIAL = "UNNOISE_TRIAL"
"""Where in the environment a search tells a run which of its trials it is."""


class Pruning(Callback):
    """Reports a metric to the Optuna study of which the run is a trial, and asks its pruner.

    After each validation the newest value of ``metric`` is reported at the optimizer step; where
    ``pruner`` (one of ``optuna.pruners``) finds it worse than it should be, the run ends as pruned.
    A run that is no trial of a search is left alone.
    """

    def __init__(self, pruner: Any, metric: str) -> None:
        self.pruner, self.metric = pruner, metric

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Report and ask: rank 0 does, and all ranks end together.

        Raises:
            Pruned: the run is not worth going on with.
        """
        told = self._ask(trainer) if trainer.is_global_zero and TRIAL in os.environ else None
        if (told := ranks.broadcast(told)) is not None:
            raise Pruned(told)

    def _ask(self, trainer: Trainer) -> str | None:
        """Why the run should end; None if it should go on."""
        import optuna

        (lines,) = (each for each in trainer.loggers if isinstance(each, JsonLines))
        value, step = lines.latest.get(self.metric, math.nan), trainer.global_step
        if math.isnan(value):
            return None
        optuna.logging.set_verbosity(logging.WARNING)
        asked = json.loads(os.environ[TRIAL])
        study = optuna.load_study(
            asked["study"], asked["storage"], optuna.samplers.RandomSampler(), self.pruner
        )
        trial = optuna.trial.Trial(study, asked["id"])
        trial.report(value, step)
        worse = step < trainer.max_steps and trial.should_prune()
        return f"{self.metric} {value:.4g} at step {step} is worse than others'" if worse else None
