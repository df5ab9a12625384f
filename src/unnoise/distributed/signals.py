"""Which signals end a process, and with what status."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
REQUEUE = (signal.SIGUSR1, signal.SIGUSR2)
"""Those for which a launcher, such as submitit, may have a handler that requeues the job."""
AGAIN = 0.5
"""Seconds in which a second Ctrl-C is still the first, passed on by another process."""


def status_of(number: int) -> int:
    """What a command exits with that a signal ended: 130 after Ctrl-C, else 143."""
    return 130 if number == signal.SIGINT else 143


def leave(status: int) -> NoReturn:
    """End this process when all is closed, without the interpreter's last look through memory.

    With all that PyTorch brings that takes seconds; and what is left of a process group would wait
    for ranks that are gone.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # the terminal may be gone
            stream.flush()
    os._exit(status)


def end_on_signals() -> None:
    """Let signals end this process in order, as long as there is nothing to save.

    SLURM sends them to all processes of a job, and so also to the ranks that a process has started.
    """
    for number in (signal.SIGTERM, *REQUEUE):
        signal.signal(number, _end)


@contextmanager
def heard(act: Callable[[int], None], hurry: Callable[[], object]) -> Iterator[None]:
    """Call ``act`` with the first signal that is to end this process.

    Later ones change nothing, but for a second Ctrl-C: it calls ``hurry`` and ends the process at
    once. What nohup ignores is ignored, and SIGUSR2 is left alone unless a launcher waits for it:
    a launcher's handler of SIGUSR1 or SIGUSR2 is called at the end, when all is saved. In another
    thread than the main one, nothing is heard.
    """
    first, since = 0, 0.0

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal first, since
        now = time.monotonic()
        if not first:
            first, since = number, now
            act(number)
        elif number == first == signal.SIGINT and now > since + AGAIN:
            hurry()
            os._exit(status_of(number))

    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            handler = signal.getsignal(number)
            ignored = number == signal.SIGHUP and handler == signal.SIG_IGN
            if not ignored and (number != signal.SIGUSR2 or callable(handler)):
                before[number] = signal.signal(number, on_signal)
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
        if is_launchers(before.get(first)) and first in REQUEUE:
            before[first](first, None)


def is_launchers(handler: Any) -> bool:
    """Whether it is a launcher's, which requeues the job at the end."""
    return callable(handler) and handler is not _end


def _end(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(status_of(number))
