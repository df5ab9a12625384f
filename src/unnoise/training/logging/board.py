"""What a page on which a run can be watched must do."""

from abc import ABC, abstractmethod
from argparse import Namespace
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

from lightning.pytorch.loggers import Logger

PATIENCE = 20.0
"""Seconds that training waits for a dashboard to take something, before it goes on without."""
T = TypeVar("T")


class Dashboard(Logger, ABC):
    """Opens with a run, is told of what is logged, and ends with it. Only rank 0 calls it.

    ``manifest`` is what ``manifest.json`` says. Whatever goes wrong is raised: the run goes on
    without the dashboard, as ``loggers`` sees to. No call takes much longer than PATIENCE, but for
    the first and the last, whose limits the dashboard's own arguments are. ``remedy`` is what is
    said where it failed.
    """

    remedy = ""

    @property
    def name(self) -> str:
        """As Lightning wants one."""
        return type(self).__name__

    @property
    def version(self) -> str:
        """As Lightning wants one."""
        return ""

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any) -> None:
        """``begin`` is given the config."""

    @abstractmethod
    def begin(self, config: dict[str, Any], manifest: dict[str, Any], step: int) -> None:
        """Open the page of a run that stands at ``step``."""

    @abstractmethod
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add a point to the curve of each metric."""

    @abstractmethod
    def show(self, name: str, picture: Path, caption: str, step: int) -> None:
        """Show a PNG or an animated GIF."""

    @abstractmethod
    def alert(self, title: str, text: str, step: int) -> None:
        """Show what a person should look at."""

    @abstractmethod
    def end(self, manifest: dict[str, Any]) -> None:
        """Hand in what is still to come, and close the page."""

    @abstractmethod
    def abandon(self) -> None:
        """Leave nothing behind of a dashboard that failed that could hold up the process."""


def within(seconds: float, act: Callable[[], T]) -> T:
    """What ``act`` returns; it is done in a thread, which is left to itself if it hangs.

    Raises:
        TimeoutError: ``act`` took longer than that.
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
