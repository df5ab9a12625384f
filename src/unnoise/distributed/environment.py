"""Which rank this process is, how many there are, and what started it."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Place:
    """A process among those that share the work of one command."""

    rank: int = 0
    local_rank: int = 0
    """Its number on its own machine."""
    world_size: int = 1
    launcher: Literal["torchrun", "srun"] | None = None
    """"torchrun" stands for everything that sets its variables, such as our own launcher."""

    def trains(self, nodes: int) -> bool:
        """Whether it is one rank of a training run on ``nodes`` machines, and starts none itself.

        If srun started one process on each machine, each of them starts the ranks of its machine.
        """
        return self.launcher == "torchrun" or self.world_size > nodes


ALONE = Place()
"""A process that shares its work with no other."""


def place() -> Place:
    """This process's place, from the variables that torchrun, Lightning or srun has set."""
    env = os.environ
    if "WORLD_SIZE" in env:
        local = int(env.get("LOCAL_RANK", 0))
        return Place(int(env.get("RANK", local)), local, int(env["WORLD_SIZE"]), "torchrun")
    tasks = int(env.get("SLURM_STEP_NUM_TASKS", 1))  # not set in an allocation without srun
    if tasks == 1:
        return Place()
    return Place(int(env["SLURM_PROCID"]), int(env.get("SLURM_LOCALID", 0)), tasks, "srun")


def requeued() -> bool:
    """Whether SLURM or torchrun starts this run again, after a preemption or a failure."""
    counts = ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT")
    return any(int(os.environ.get(count, 0)) > 0 for count in counts)


@contextmanager
def set_environment(new: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables; afterwards the whole environment is what it was."""
    before = dict(os.environ)
    os.environ.update(new)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)
