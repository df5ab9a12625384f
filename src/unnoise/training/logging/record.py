"""Sends metrics, pictures and alerts to every logger of a trainer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning import Trainer

from unnoise.runs.manifest import Manifest
from unnoise.training.logging.board import Dashboard, say
from unnoise.training.logging.jsonl import JsonLines


def begin(trainer: Trainer, config: dict[str, Any], manifest: Manifest, step: int) -> None:
    """Open each dashboard's page of a run that stands at ``step``; name the images left out."""
    for each in manifest["data"]["quarantined"]:
        say(each)
    _on_each(trainer, lambda logger: logger.begin(config, manifest, step))


def log_metrics(trainer: Trainer, metrics: dict[str, float]) -> None:
    """Write metrics to every logger at the trainer's optimizer step."""
    step = trainer.global_step
    _on_each(trainer, lambda logger: logger.log_metrics(metrics, step))


def log_picture(trainer: Trainer, name: str, path: Path, caption: str | None = None) -> None:
    """Show a picture file (PNG or GIF) on each dashboard, with the step before its caption."""
    step = trainer.global_step
    text = f"step {step}" + (f", {caption}" if caption else "")
    _on_each(trainer, lambda logger: logger.show(name, path, text, step))


def alert(trainer: Trainer, title: str, text: str) -> None:
    """Show a message on stderr and on each dashboard; only rank 0 does."""
    if trainer.is_global_zero:
        say(f"{title}: {text}")
    step = trainer.global_step
    _on_each(trainer, lambda logger: logger.alert(title, text, step))


def end(trainer: Trainer, manifest: Manifest) -> None:
    """Close each dashboard's page, so that the next job of a process opens its own."""
    _on_each(trainer, lambda logger: logger.end(manifest))


def _on_each(trainer: Trainer, act: Callable[[Any], None]) -> None:
    """Act on every logger. One that fails is reported and left out; the run goes on."""
    for logger in list(trainer.loggers) if trainer.is_global_zero else []:
        try:
            act(logger)
        except Exception as error:
            if isinstance(logger, JsonLines):
                raise
            trainer.loggers = [other for other in trainer.loggers if other is not logger]
            remedy = ""
            if isinstance(logger, Dashboard):
                logger.abandon()
                remedy = logger.remedy
            reason = " ".join(str(error).split()) or type(error).__name__
            say(
                f"{type(logger).__name__} failed ({reason}) and is left out from step "
                f"{trainer.global_step} on; metrics.jsonl goes on{remedy}"
            )
