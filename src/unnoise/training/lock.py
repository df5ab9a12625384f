"""A run directory belongs to one run at a time."""

import fcntl
import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NAME = ".lock"


class Held(RuntimeError):
    """Another process trains in the run directory."""


@contextmanager
def held(run_dir: Path) -> Iterator[None]:
    """Hold the run directory; the system lets go of it however this process ends.

    A lock of POSIX (``fcntl.lockf``): it holds between machines that share the file system, and
    child processes do not inherit it.

    Raises:
        Held: another process has it; the message has its number, its host and since when.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir / NAME).open("a+") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            raise Held(f"{run_dir} is being trained by {_told(file.read())}") from error
        file.truncate(0)
        holder = {"pid": os.getpid(), "host": platform.node(), "since": time.strftime("%F %T")}
        file.write(json.dumps(holder))
        file.flush()
        yield


def is_held(run_dir: Path) -> bool:
    """Whether another process has the run directory; not to be asked by the one that has it."""
    try:
        with (run_dir / NAME).open() as file:
            fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def _told(text: str) -> str:
    try:
        holder = json.loads(text)
        return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
