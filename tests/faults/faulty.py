"""Starts the training command for real, in a folder of its own, so that it can be hurt."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

COMMAND = (sys.executable, "-c", "from unnoise.cli.train import main; main()")
TINY = (
    "network.channels=8 network.multipliers=[1,1] network.blocks=1 network.head_size=null "
    "network.attention_resolutions=[] batch_size=4 validation_images=2 sampler.steps=2 "
    "callbacks.samples.count=2 callbacks.samples.sampler.steps=2 callbacks.metrics.every=1 "
    "logger=none"
).split()


def start(folder, *overrides, **variables):
    """The command, under way in ``folder``; what it says goes to ``folder/said.txt``."""
    folder.mkdir(parents=True, exist_ok=True)
    environment = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("WANDB", "UNNOISE", "SLURM"))
    }
    environment |= {"OMP_NUM_THREADS": "1", "NETRC": str(folder / "netrc")} | variables
    with (folder / "said.txt").open("ab") as said:
        return subprocess.Popen(
            [*COMMAND, *TINY, *overrides],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def said(folder):
    """What was printed so far."""
    return (folder / "said.txt").read_text(errors="replace")


def run_of(folder):
    """The one run directory below ``folder``."""
    (found,) = (folder / "outputs").glob("*/*_*-*")
    return found


def rows(run):
    """The whole lines of metrics.jsonl."""
    path = Path(run) / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def wait_for_step(process, folder, step, timeout=120):
    """Return once the run has logged ``step``; fail if it ends before, or takes too long."""
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        for run in (folder / "outputs").glob("*/*_*-*"):
            if any(row["step"] >= step for row in rows(run)):
                return run
        assert process.poll() is None, said(folder)
        time.sleep(0.05)
    raise AssertionError(f"step {step} was not reached in {timeout} s:\n{said(folder)}")
