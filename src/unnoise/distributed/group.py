"""The processes (ranks) that train one run together: how they meet, agree and part."""

import hashlib
import json
import os
import platform
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from torch.distributed.rendezvous import rendezvous

_flags: Any = None  # the group over which numbers on the CPU are added up


class ConfigMismatch(RuntimeError):
    """The ranks were started with different configurations."""


class RankLost(RuntimeError):
    """Another rank has ended."""


class RankTimeout(RuntimeError):
    """Another rank lives, as far as can be told, but did not answer in time."""


def environment() -> ClusterEnvironment:
    """How this process was started: by torchrun or its like, by srun, or alone.

    Raises:
        ConfigMismatch: by srun, which was not told how many each machine is to have.
    """
    if TorchElasticEnvironment.detect():
        return TorchElasticEnvironment()
    if int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1:  # not set in a mere allocation
        if "SLURM_NTASKS_PER_NODE" not in os.environ:
            raise ConfigMismatch(
                "srun was told --ntasks, but not how many of these each machine is to have: "
                "use --ntasks-per-node"
            )
        return SLURMEnvironment(auto_requeue=False)
    return LightningEnvironment()


@contextmanager
def together(devices: int, accelerator: str, timeout: float) -> Iterator[ClusterEnvironment]:
    """Meet the other ranks, and part from them at the end; alone there is nothing to do.

    Args:
        devices: how many ranks there are to be, over all machines.
        accelerator: what they compute on; GPUs talk over NCCL, all else over gloo.
        timeout: seconds that a rank waits for another before it gives up.

    Raises:
        ConfigMismatch: another number of processes was started.
        RankLost: another rank ended before this one.
        RankTimeout: another rank kept this one waiting for longer than ``timeout``.
    """
    global _flags
    place = environment()
    given = int(os.environ.get("WORLD_SIZE", place.world_size()))
    if given != devices:
        raise ConfigMismatch(
            f"{given} processes were started, but the trainer has {devices} "
            "(trainer.devices × trainer.num_nodes)"
        )
    if devices == 1:
        yield place
        return
    limit = timedelta(seconds=timeout)
    rank = int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", place.global_rank())))
    os.environ["MASTER_ADDR"] = place.main_address
    os.environ["MASTER_PORT"] = str(place.main_port)
    gpu = accelerator in ("gpu", "cuda")
    met: list[tuple[str, int]] = []  # the host and the process of each rank
    try:
        backend = "nccl" if gpu else "gloo"
        store, _, _ = next(rendezvous("env://", rank, devices, timeout=limit))
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")  # else it meets the last one's
        store = dist.PrefixStore(f"unnoise/{attempt}", store)  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=store, rank=rank, world_size=devices, timeout=limit)
        _flags = dist.new_group(backend="gloo", timeout=limit) if gpu else dist.group.WORLD
        met = from_all((platform.node(), os.getpid()))
        yield place
    except BaseException as error:
        for host, process in met:  # one that was stopped does not hear that it is to end
            if host == platform.node():
                with suppress(OSError):
                    os.kill(process, signal.SIGCONT)
        if lost(error):
            if "time" in str(error).lower():
                told = f"another rank did not answer within rank_timeout={timeout:g} seconds"
                raise RankTimeout(told) from error
            raise RankLost("another rank is gone") from error
        raise
    finally:
        _flags = None
    dist.destroy_process_group()  # not after an error: the others may be gone


def lost(error: BaseException) -> bool:
    """Whether an error tells that another rank did not do its part."""
    return isinstance(error, dist.DistError) or "/gloo/" in str(error)


def number() -> int:
    """This rank's; 0 alone."""
    return dist.get_rank() if dist.is_initialized() else 0


def total(values: Sequence[float]) -> list[float]:
    """Each value summed over all ranks; every rank calls it."""
    if _flags is None:
        return list(values)
    summed = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(summed, group=_flags)
    return summed.tolist()


def from_first(value: Any) -> Any:
    """What rank 0 has; every rank calls it, with a value that can be pickled."""
    if _flags is None:
        return value
    held = [value]
    dist.broadcast_object_list(held, src=0, group=_flags)
    return held[0]


def from_all(value: Any) -> list[Any]:
    """What each rank has, by rank; every rank calls it, with a value that can be pickled."""
    if _flags is None:
        return [value]
    found: list[Any] = [None] * dist.get_world_size(_flags)
    dist.all_gather_object(found, value, group=_flags)
    return found


def agree(what: str, tree: Mapping[str, Any]) -> None:
    """Hold a plain tree of dicts and lists against rank 0's.

    Raises:
        ConfigMismatch: on every rank, if one has another tree; it names the keys that differ.
    """
    if _flags is None:
        return
    mine = {key: _digest(value) for key, value in _leaves(tree)}
    firsts = from_first(mine)
    differ = sorted(k for k in mine.keys() | firsts.keys() if mine.get(k) != firsts.get(k))
    found = from_all(differ)
    if any(found):
        told = "; ".join(f"rank {k}: {', '.join(keys)}" for k, keys in enumerate(found) if keys)
        raise ConfigMismatch(f"the ranks were started with another {what} than rank 0: {told}")


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def _leaves(tree: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, Mapping) and tree:
        for name, value in tree.items():
            yield from _leaves(value, f"{key}.{name}" if key else str(name))
    else:
        yield key, tree


def processes() -> tuple[int, int]:
    """This process's rank and how many there are; more than one under torchrun, which then meet.

    They wait for each other for a week: one may compute a reference, and torchrun ends them all
    when one fails.
    """
    ranks = int(os.environ.get("WORLD_SIZE", 1))
    if ranks > 1 and not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo", timeout=timedelta(days=7))
    return int(os.environ.get("RANK", 0)), ranks


def gathered(part: Any) -> list[Any]:
    """What every process has, by rank, on the first of them; the others get nothing."""
    rank, ranks = processes()
    if ranks == 1:
        return [part]
    parts: list[Any] = [None] * ranks if rank == 0 else []
    torch.distributed.gather_object(part, parts if rank == 0 else None)
    return parts
