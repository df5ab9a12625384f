"""Sends metrics, pictures and alerts to every logger of a trainer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning import Trainer
from lightning.pytorch.loggers import Logger

from unnoise.runs.manifest import Manifest
from unnoise.training.logging.board import Dashboard
from unnoise.training.logging.jsonl import JsonLines
from unnoise.training.logging.messages import say


def begin(trainer: Trainer, config: dict[str, Any], manifest: Manifest, step: int) -> None:
    """Open each dashboard's page of a run that stands at ``step``; say what the data lacks."""
    for each in manifest["data"]["quarantined"]:
        say(each)

    def open_page(logger: Logger) -> None:
        if isinstance(logger, Dashboard):
            logger.begin(config, manifest, step)
        else:
            logger.log_hyperparams(config)

    _on_each(trainer, open_page)


def log_metrics(trainer: Trainer, metrics: dict[str, float]) -> None:
    """Write metrics to every logger at the trainer's optimizer step."""
    step = trainer.global_step
    _on_each(trainer, lambda logger: logger.log_metrics(metrics, step))


def log_picture(trainer: Trainer, name: str, path: Path, caption: str | None = None) -> None:
    """Show a picture file (PNG or GIF) on each dashboard, with the step before its caption."""
    step = trainer.global_step
    told = f"step {step}" + (f", {caption}" if caption else "")

    def show(logger: Logger) -> None:
        if isinstance(logger, Dashboard):
            logger.show(name, path, told, step)

    _on_each(trainer, show)


def alert(trainer: Trainer, title: str, text: str) -> None:
    """Tell a person at once, on stderr and on each dashboard; rank 0 does."""
    if not trainer.is_global_zero:
        return
    say(f"{title}: {text}")
    step = trainer.global_step

    def show(logger: Logger) -> None:
        if isinstance(logger, Dashboard):
            logger.alert(title, text, step)

    _on_each(trainer, show)


def end(trainer: Trainer, manifest: Manifest) -> None:
    """Close each dashboard's page, so that the next job of a process opens its own."""

    def close_page(logger: Logger) -> None:
        if isinstance(logger, Dashboard):
            logger.end(manifest)
        elif isinstance(logger, JsonLines):
            logger.write()
            if logger.unwritten:
                say(f"{len(logger.unwritten)} lines of {logger.path} are lost: there is no space")

    _on_each(trainer, close_page)


def _on_each(trainer: Trainer, act: Callable[[Logger], None]) -> None:
    """Act on every logger; a dashboard that fails is said once and left, the run goes on."""
    for logger in list(trainer.loggers) if trainer.is_global_zero else []:
        try:
            act(logger)
        except Exception as error:
            if isinstance(logger, JsonLines):
                raise
            trainer.loggers = [other for other in trainer.loggers if other is not logger]
            told = " ".join(str(error).split()) or type(error).__name__
            remedy = ""
            if isinstance(logger, Dashboard):
                logger.abandon()
                remedy = logger.remedy
            say(
                f"{type(logger).__name__} failed ({told}) and is left out from step "
                f"{trainer.global_step} on; metrics.jsonl goes on{remedy}"
            )
