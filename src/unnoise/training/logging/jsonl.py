"""``metrics.jsonl``: the metrics of a run, in its own directory."""

import errno
import json
import math
import os
import time
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only

from unnoise.files import write_durably
from unnoise.training.logging.record import Dashboard, say


class JsonLines(Dashboard):
    """``metrics.jsonl``: one line {"step", "time", metric: value, …} each time metrics are logged.

    A value that is not finite is null. Each line is written whole or not at all: on a full disk,
    lines wait in ``unwritten`` until there is space. A run that resumes at step k drops the lines
    after k and writes them again. ``latest`` is the last value of each metric.
    """

    needed = True

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.latest: dict[str, float] = {}
        self.unwritten: list[str] = []
        self._said = False

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append a line."""
        self.latest |= metrics
        plain = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        row = {"step": step, "time": round(time.time(), 3), **plain}
        self.unwritten.append(json.dumps(row) + "\n")
        self.write()

    def write(self) -> None:
        """Write the lines that wait; a full disk is reported once."""
        try:
            while self.unwritten:
                _append_whole(self.path, self.unwritten[0].encode())
                del self.unwritten[0]
            self._said = False
        except OSError as error:
            if not self._said:
                self._said = True
                say(
                    f"{self.path} cannot be written ({error.strerror}): lines are kept in memory "
                    "until it can, and training goes on"
                )

    def rewind(self, step: int) -> None:
        """Drop what was logged after ``step``, and a last line cut short by a kill."""
        if not self.path.exists():
            return
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
        write_durably(
            self.path, lambda temporary: temporary.write_text("".join(kept), encoding="utf-8")
        )

    def rows(self) -> list[dict[str, Any]]:
        """What was logged, also what still waits for space; not a line that was cut short."""
        lines = (
            self.path.read_text(encoding="utf-8").splitlines(keepends=True)
            if self.path.exists()
            else []
        )
        return [json.loads(line) for line in lines + self.unwritten if line.endswith("\n")]

    def end(self, manifest: dict[str, Any]) -> None:
        """Write what still waits, and say how much is lost if there is still no space."""
        self.write()
        if self.unwritten:
            say(f"{len(self.unwritten)} lines of {self.path} are lost: there is no space")


def _append_whole(path: Path, line: bytes) -> None:
    """Append a line, or raise OSError and leave the file as it was."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        before = os.fstat(descriptor).st_size
        try:
            if os.write(descriptor, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            os.ftruncate(descriptor, before)
            raise
    finally:
        os.close(descriptor)
