"""A run on two processes that never finishes by itself, to be hurt and to go on."""

import os
import signal
import time
from pathlib import Path

from faulty import rows, said, start

from unnoise.runs.checkpoints import newest_whole
from unnoise.runs.layout import step_of

ENDLESS = ("max_steps=1000000", "callbacks.checkpoints.every=1000000")
STEPPING = ("validate_every=1000000", "callbacks.samples.every=1000000")


def family(pid):
    """A process and all that it started, and those that they did."""
    return [pid, *(each for child in children(pid) for each in family(child))]


def children(pid):
    """The processes that one has started and that have not ended."""
    try:
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def alive(pid):
    """Whether a process has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def rank_of(pid):
    """The rank that a process is, by its environment; None if it is none."""
    try:
        told = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return None
    return next((int(each[5:]) for each in told if each.startswith(b"RANK=")), None)


class Run:
    """The runs of one folder, of which there is one at a time."""

    def __init__(self, folder, *overrides):
        self.folder, self.overrides = folder, overrides
        self.process, self.family = None, []

    @property
    def directory(self):
        """Of the run, as soon as there is one."""
        found = sorted((self.folder / "outputs").glob("*/*_*-*"))
        return found[0] if found else self.folder / "none"

    def last(self, since=0.0):
        """The last step that was logged, since a time."""
        logged = (row["step"] for row in rows(self.directory) if row["time"] > since)
        return max(logged, default=0)

    def saved(self):
        """The step of the newest checkpoint."""
        return step_of(newest_whole(self.directory))

    def go_on(self, *overrides, steps=5):
        """Start, or resume, and return when so many more steps are logged."""
        run = self.directory
        resume = [f"resume={run}"] if run.exists() else []
        before = self.saved() if run.exists() else 0
        begun = time.time()
        self.process = start(self.folder, *ENDLESS, *self.overrides, *overrides, *resume)
        self.wait_for(before + steps, begun)

    def wait_for(self, step, since=0.0):
        """Return when a step is logged; know the processes by then."""
        until = time.monotonic() + 180
        while self.last(since) < step:
            assert self.process.poll() is None, said(self.folder)[-3000:]
            assert time.monotonic() < until, said(self.folder)[-3000:]
            time.sleep(0.02)
        self.family = family(self.process.pid)
        ranks = {rank_of(pid): pid for pid in children(self.process.pid)}
        self.ranks = {rank: pid for rank, pid in ranks.items() if rank is not None}
        self.told = len(said(self.folder))

    def end(self, limit):
        """Seconds until nothing of it is left, and the status."""
        begun = time.monotonic()
        while any(alive(pid) for pid in self.family):
            self.process.poll()
            assert time.monotonic() < begun + limit, (self.said(), [*map(alive, self.family)])
            time.sleep(0.02)
        return time.monotonic() - begun, self.process.wait()

    def said(self):
        """What was printed since it was hurt."""
        return said(self.folder)[self.told :]

    def kill(self):
        """Leave nothing behind."""
        for pid in self.family:
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
        if self.process is not None:
            self.process.kill()
            self.process.wait()
