"""Starts the ranks of a run on this machine and watches over them, with torchrun's own agent."""

import os


def started() -> int:
    """How many processes torchrun or srun started; 1 alone."""
    return int(os.environ.get("WORLD_SIZE", os.environ.get("SLURM_STEP_NUM_TASKS", 1)))


def number(*names: str) -> int:
    """This process's, by the first of some environment variables that is there; alone it is 0."""
    return next((int(os.environ[name]) for name in names if name in os.environ), 0)


def rank() -> int:
    """This process's number among those of the run, as Lightning looks for it."""
    return number("RANK", "LOCAL_RANK", "SLURM_PROCID")


def started_as_rank(nodes: int) -> bool:
    """Whether torchrun or srun started this process as one rank of several.

    If srun started one process on each of the nodes, each of these starts the ranks of its node.
    """
    return "WORLD_SIZE" in os.environ or started() > nodes


def requeued() -> bool:
    """Whether SLURM or torchrun starts this run again, after a preemption or a failure."""
    counts = ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT")
    return any(int(os.environ.get(count, 0)) > 0 for count in counts)
