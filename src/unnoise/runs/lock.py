"""A run directory belongs to one run at a time."""

import errno
import fcntl
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from unnoise.runs.layout import RunDirectory


class RunLocked(RuntimeError):
    """Another process trains in the run directory."""


@contextmanager
def held(run_dir: Path) -> Iterator[None]:
    """Lock the run directory; the system releases it however this process ends.

    A POSIX lock (``fcntl.lockf``): it works between machines that share the file system, and child
    processes do not inherit it. If the file system has no locks, a warning is printed.

    Raises:
        RunLocked: another process has it; the message has its number, its host and since when.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    with RunDirectory(run_dir).lock.open("a+") as file:
        _lock(file, run_dir)
        file.truncate(0)
        holder = {"pid": os.getpid(), "host": platform.node(), "since": time.strftime("%F %T")}
        file.write(json.dumps(holder))
        file.flush()
        yield


def check(run_dir: Path) -> None:
    """Raise RunLocked if another process holds the run directory. Not for the one that does."""
    try:
        file = RunDirectory(run_dir).lock.open("r+")
    except OSError:
        return  # nobody has trained there, or this user must not: another check says so
    with file:
        _lock(file, run_dir)


def is_locked(run_dir: Path) -> bool:
    """Whether another process trains in a run directory."""
    try:
        check(run_dir)
    except RunLocked:
        return True
    return False


def _lock(file: TextIO, run_dir: Path) -> None:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            raise RunLocked(f"{run_dir} is being trained by {_holder(file)}") from None
        message = f"{file.name} cannot be locked ({error.strerror}): make sure that no"
        print(f"warning: {message} second run trains there", file=sys.stderr)


def _holder(file: TextIO) -> str:
    file.seek(0)
    try:
        holder = json.loads(file.read())
        return f"process {holder['pid']} on host {holder['host']} since {holder['since']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
