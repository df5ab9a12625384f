"""What every logger of a run does, and what sends metrics, pictures and alerts to all of them."""

import sys
from argparse import Namespace
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

from lightning import Trainer
from lightning.pytorch.loggers import Logger
from tqdm import tqdm

PATIENCE = 20.0
"""Seconds that training waits for a dashboard to take something, before it goes on without."""
T = TypeVar("T")


class Dashboard(Logger):
    """A logger of a run. It may raise anything: then the run goes on without it. For rank 0 only.

    No call takes much longer than PATIENCE, except ``begin`` and ``end``. ``manifest`` is the
    content of ``manifest.json``; ``remedy`` is the end of the message that says that it failed. A
    run does not go on without one that is ``needed``.
    """

    remedy, needed = "", False
    name = version = ""  # Lightning requires both

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any) -> None:
        """``begin`` is given the config."""

    def begin(self, config: dict[str, Any], manifest: dict[str, Any], step: int) -> None:
        """Open the page of a run that stands at ``step``."""

    def show(self, name: str, picture: Path, caption: str, step: int) -> None:
        """Show a PNG or an animated GIF."""

    def alert(self, title: str, text: str, step: int) -> None:
        """Show a message that needs attention."""

    def end(self, manifest: dict[str, Any]) -> None:
        """Send what is left, and close the page."""

    def abandon(self) -> None:
        """After a failure: leave nothing behind that could block the process."""


def within(seconds: float, act: Callable[[], T]) -> T:
    """What ``act`` returns; it runs in a thread, which is abandoned if it hangs.

    Raises:
        TimeoutError: ``act`` took longer than ``seconds``.
        Exception: whatever ``act`` raises.
    """
    outcome: Future[T] = Future()

    def work() -> None:
        try:
            outcome.set_result(act())
        except Exception as error:
            outcome.set_exception(error)
        except BaseException as error:  # a library's sys.exit must not end the process
            outcome.set_exception(RuntimeError(repr(error)))

    Thread(target=work, daemon=True).start()
    try:
        return outcome.result(seconds)
    except TimeoutError as error:
        raise TimeoutError(str(error) or f"no answer within {seconds:g} s") from error


def say(text: str) -> None:
    """Print a line on stderr, above the progress bar."""
    tqdm.write(f"warning: {text}", file=sys.stderr)


def begin(trainer: Trainer, config: dict[str, Any], manifest: dict[str, Any], step: int) -> None:
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


def end(trainer: Trainer, manifest: dict[str, Any]) -> None:
    """Close each dashboard's page, so that the next job of a process opens its own."""
    _on_each(trainer, lambda logger: logger.end(manifest))


def _on_each(trainer: Trainer, act: Callable[[Any], None]) -> None:
    """Act on every logger. One that fails is reported and left out; the run goes on."""
    for logger in list(trainer.loggers) if trainer.is_global_zero else []:
        try:
            act(logger)
        except Exception as error:
            if isinstance(logger, Dashboard) and logger.needed:
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
