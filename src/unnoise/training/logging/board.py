"""What every logger of a run does, and messages on the terminal."""

import sys
from argparse import Namespace
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

from lightning.pytorch.loggers import Logger
from tqdm import tqdm

PATIENCE = 20.0
"""Seconds that training waits for a dashboard to take something, before it goes on without."""
T = TypeVar("T")


class Dashboard(Logger):
    """A logger of a run. It may raise anything: then the run goes on without it. For rank 0 only.

    No call takes much longer than PATIENCE, except ``begin`` and ``end``. ``manifest`` is the
    content of ``manifest.json``; ``remedy`` is the end of the message that says that it failed.
    """

    remedy = ""

    @property
    def name(self) -> str:
        """Lightning requires a name."""
        return type(self).__name__

    @property
    def version(self) -> str:
        """Lightning requires a version."""
        return ""

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
