"""Starts the ranks of a run on this machine and watches over them, with torchrun's own agent."""

import json
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

GRACE = 30
"""Seconds that ranks have to save and end after a signal, before they are killed."""
SIGNALS = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"


class RankFailed(RuntimeError):
    """A rank ended the run; ``status`` is what the command is to exit with."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def started() -> int:
    """How many processes torchrun or srun started; 1 alone."""
    return int(os.environ.get("WORLD_SIZE", os.environ.get("SLURM_STEP_NUM_TASKS", 1)))


def started_as_rank(nodes: int) -> bool:
    """Whether torchrun or srun started this process as one rank of several.

    If srun started one process on each of the nodes, each of these starts the ranks of its node.
    """
    return "WORLD_SIZE" in os.environ or started() > nodes


def requeued() -> bool:
    """Whether SLURM runs this job again, after a preemption or the end of its time."""
    return int(os.environ.get("SLURM_RESTART_COUNT", 0)) > 0


def train_on_ranks(orders: Mapping[str, Any], devices: int, nodes: int) -> None:
    """Train on ``devices`` ranks of this machine, one of ``nodes``; returns when all are done.

    ``orders`` is what each rank is given: the plain keyword arguments of ``rank.train``.

    Raises:
        RankFailed: a rank failed, was killed, or was told to stop.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)  # we say it shorter
    with tempfile.TemporaryDirectory(prefix="unnoise-") as folder, _threads(devices):
        path = Path(folder) / "orders.json"
        path.write_text(json.dumps(orders))
        config = LaunchConfig(
            min_nodes=nodes,
            max_nodes=nodes,
            nproc_per_node=devices,
            run_id=os.environ.get("SLURM_JOB_ID", "unnoise"),
            rdzv_backend="c10d",
            rdzv_endpoint=_meeting_point(nodes),
            max_restarts=0,
            signals_to_handle=SIGNALS,
            shutdown_timeout=GRACE,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
        )
        try:
            elastic_launch(config, sys.executable)("-m", "unnoise.cli.rank", str(path))
        except SignalException as error:
            number = error.sigval
            status = 130 if number == signal.SIGINT else 143
            raise RankFailed(f"stopped by {signal.Signals(number).name}", status) from error
        except ChildFailedError as error:
            rank, failure = error.get_first_failure()
            raise RankFailed(*_told(rank, failure.exitcode)) from error


def _told(rank: int, code: int) -> tuple[str, int]:
    if code in (130, 143):
        return "stopped", code
    if code < 0:
        return f"rank {rank} was killed by {signal.Signals(-code).name}", 128 - code
    return f"rank {rank} failed with status {code}; what it said is above", code


def _meeting_point(nodes: int) -> str:
    """Where the agents meet: on this machine, or on the first of SLURM's."""
    if nodes == 1:
        return "localhost:0"
    if started() != nodes:
        told = f"trainer.num_nodes is {nodes}, but {started()} of them started a process"
        raise RankFailed(f"{told}: use srun, torchrun or hydra/launcher=slurm", 2)
    from unnoise.training.ranks import environment

    place = environment()
    return f"{place.main_address}:{place.main_port}"


@contextmanager
def _threads(devices: int) -> Any:
    """Share the processors among the ranks, as torch would use all of them in each."""
    before = os.environ.get("OMP_NUM_THREADS")
    if before is None:
        os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // devices))
    yield
    if before is None:
        del os.environ["OMP_NUM_THREADS"]
