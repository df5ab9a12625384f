"""Starts the ranks of a run on this machine and watches over them, with torchrun's own agent."""

import json
import logging
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from unnoise.distributed.environment import place, set_environment
from unnoise.distributed.signals import heard, status_of

MEETING = 900
"""Seconds that the machines of a run wait for each other before they start."""
GRACE = 30
"""Seconds that ranks have to save and end after a signal, before they are killed."""
LOST, TIMED_OUT = 75, 124
"""The statuses of a rank that lost another one, or waited for it for too long."""


class RankFailed(RuntimeError):
    """A rank ended the run; ``status`` is what the command is to exit with."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def train_on_ranks(orders: list[Any], devices: int, nodes: int) -> None:
    """Train on ``devices`` ranks of this machine, one of ``nodes``; returns when all are done.

    ``orders`` are the arguments of ``unnoise.training.loop.fit`` but for the recipe, which is made
    of the config; in plain containers.

    Raises:
        RankFailed: a rank failed, was killed, or was stopped by a signal.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    def pass_on(number: int) -> NoReturn:
        """The agent sends it to the ranks and waits; they notice if this process is gone."""
        known = number in (signal.SIGINT, signal.SIGTERM)
        raise SignalException("", signal.Signals(number) if known else signal.SIGUSR1)

    for name in logging.root.manager.loggerDict:
        if name.startswith("torch.distributed.elastic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # we say it shorter
    share = max(1, (os.cpu_count() or 1) // devices)
    threads = os.environ.get("OMP_NUM_THREADS", str(share))
    with (
        tempfile.TemporaryDirectory(prefix="unnoise-") as folder,
        set_environment({"OMP_NUM_THREADS": threads}),  # torch would use all in each rank
        heard(pass_on, hurry=lambda: shutil.rmtree(folder, ignore_errors=True)),
    ):
        path = Path(folder) / "orders.json"
        path.write_text(json.dumps(orders), encoding="utf-8")
        config = LaunchConfig(
            min_nodes=nodes,
            max_nodes=nodes,
            nproc_per_node=devices,
            run_id=os.environ.get("SLURM_JOB_ID", "unnoise"),
            **_meeting(nodes),
            max_restarts=0,
            signals_to_handle="",  # ours are there
            shutdown_timeout=GRACE,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
        )
        try:
            elastic_launch(config, sys.executable)("-m", "unnoise.training.worker", str(path))
        except SignalException as error:
            raise RankFailed("stopped", status_of(error.sigval)) from error
        except ChildFailedError as error:
            raise RankFailed(*_cause(error.failures)) from error


def _cause(failures: Mapping[int, Any]) -> tuple[str, int]:
    """What ended the run, and the status: of the first that failed by itself."""
    rank = min(failures, key=lambda r: (failures[r].exitcode == LOST, failures[r].timestamp))
    code = failures[rank].exitcode
    if code in (130, 143):
        return "stopped", code
    if code < 0:
        return f"rank {rank} was killed by {signal.Signals(-code).name}", 128 - code
    return f"rank {rank} failed with status {code}; see its message above", code


def _meeting(nodes: int) -> dict[str, Any]:
    """How the agents meet: on this machine, or on the first of SLURM's, which gets rank 0."""
    if nodes == 1:
        return {"rdzv_backend": "c10d", "rdzv_endpoint": "localhost:0"}
    if (started := place().world_size) != nodes:
        message = f"trainer.num_nodes is {nodes}, but {started} of them started a process"
        raise RankFailed(f"{message}: use srun, torchrun or hydra/launcher=slurm", 2)
    from unnoise.distributed.group import lightning_environment

    cluster = lightning_environment()
    return {
        "rdzv_backend": "static",
        "rdzv_endpoint": f"{cluster.main_address}:{cluster.main_port}",
        "rdzv_configs": {"rank": cluster.node_rank(), "timeout": MEETING},
    }
