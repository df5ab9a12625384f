"""The ranks of one task: how they meet, exchange values and part."""

import os
import platform
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from unnoise.distributed.devices import uses_gpu
from unnoise.distributed.environment import Place, place

if TYPE_CHECKING:
    from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment

_group: Any = None  # over which values on the CPU are exchanged; None in a process alone


class ConfigMismatch(RuntimeError):
    """The ranks were started with different configurations."""


class RankLost(RuntimeError):
    """Another rank has ended."""


class RankTimeout(RuntimeError):
    """Another rank did not answer in time, although it has not ended."""


def lightning_environment() -> "ClusterEnvironment":
    """This process's place in Lightning's terms; under srun also where the ranks meet."""
    from lightning.fabric.plugins.environments.lightning import LightningEnvironment
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

    class Srun(SLURMEnvironment):
        @staticmethod
        def _validate_srun_variables() -> None:
            """``together`` checks them."""

    if TorchElasticEnvironment.detect():
        return TorchElasticEnvironment()
    return Srun(auto_requeue=False) if place().launcher == "srun" else LightningEnvironment()


def join() -> Place:
    """Meet the other ranks of a command that does not train; in a process alone, do nothing.

    They wait for each other up to a week, as one may compute a reference; torchrun and srun end all
    ranks when one fails.
    """
    here = place()
    if here.world_size > 1 and _group is None:
        _meet("gloo", timedelta(days=7))
    return here


@contextmanager
def together(devices: int, accelerator: str, timeout: float) -> Iterator["ClusterEnvironment"]:
    """Meet the other ranks of a training run, and part from them at the end.

    There are to be ``devices`` ranks over all machines; GPUs talk over NCCL, all else over gloo. A
    rank waits ``timeout`` seconds for another before it gives up.

    Raises:
        ConfigMismatch: another number of processes was started, or srun without
            --ntasks-per-node.
        RankLost: another rank ended before this one.
        RankTimeout: another rank kept this one waiting for longer than ``timeout``.
    """
    global _group
    here = place()
    if here.launcher == "srun" and "SLURM_NTASKS_PER_NODE" not in os.environ:
        raise ConfigMismatch("srun was given --ntasks only: use --ntasks-per-node as well")
    if here.world_size != devices:
        trainers = f"the trainer has {devices} (trainer.devices × trainer.num_nodes)"
        raise ConfigMismatch(f"{here.world_size} processes were started, but {trainers}")
    if devices == 1:
        yield lightning_environment()
        return
    members: list[tuple[str, int]] = []  # the host and the process of each rank
    try:
        _meet("nccl" if uses_gpu(accelerator) else "gloo", timedelta(seconds=timeout))
        members = broadcast(gather((platform.node(), os.getpid())))
        yield lightning_environment()
    except BaseException as error:
        for host, process in members:  # a stopped process receives no signals
            if host == platform.node():
                with suppress(OSError):
                    os.kill(process, signal.SIGCONT)
        if is_lost_rank(error):
            if "time" in str(error).lower():
                message = f"another rank did not answer within rank_timeout={timeout:g} seconds"
                raise RankTimeout(message) from error
            raise RankLost("another rank is gone") from error
        raise
    finally:
        _group = None
    dist.destroy_process_group()  # not after an error: the others may be gone


def is_lost_rank(error: BaseException) -> bool:
    """Whether another rank caused an error."""
    return isinstance(error, dist.DistError) or "/gloo/" in str(error)


def sum_over_ranks(values: Sequence[float]) -> list[float]:
    """Each value summed over all ranks; every rank calls it."""
    if _group is None:
        return list(values)
    summed = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(summed, group=_group)
    return summed.tolist()


def broadcast(value: Any) -> Any:
    """Rank 0's value; every rank calls it, with a value that can be pickled."""
    if _group is None:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0, group=_group)
    return values[0]


def gather(value: Any) -> list[Any]:
    """On rank 0 the value of every rank, in order; elsewhere nothing. Every rank calls it."""
    if _group is None:
        return [value]
    values: list[Any] = [None] * dist.get_world_size() if dist.get_rank() == 0 else []
    dist.gather_object(value, values or None, group=_group)
    return values


def check_same(what: str, mine: Mapping[str, Any]) -> None:
    """Compare values by dotted keys with rank 0's; every rank calls it.

    Raises:
        ConfigMismatch: on every rank, if one has others; it names the keys that differ.
    """
    firsts = broadcast(mine)
    differ = sorted(k for k in mine.keys() | firsts.keys() if mine.get(k) != firsts.get(k))
    differences = broadcast(gather(differ))
    if any(differences):
        listed = "; ".join(f"rank {k}: {', '.join(d)}" for k, d in enumerate(differences) if d)
        raise ConfigMismatch(f"the ranks were started with another {what} than rank 0: {listed}")


def _meet(backend: str, timeout: timedelta) -> None:
    global _group
    here = place()
    if not {"MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        cluster = lightning_environment()
        os.environ["MASTER_ADDR"] = cluster.main_address
        os.environ["MASTER_PORT"] = str(cluster.main_port)
    store, _, _ = next(rendezvous("env://", here.rank, here.world_size, timeout=timeout))
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")  # else it meets the last one's
    dist.init_process_group(
        backend,
        store=dist.PrefixStore(f"unnoise/{attempt}", store),
        rank=here.rank,
        world_size=here.world_size,
        timeout=timeout,
    )
    own = backend == "nccl"
    _group = dist.new_group(backend="gloo", timeout=timeout) if own else dist.group.WORLD
