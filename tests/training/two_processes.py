"""Runs a function of a test file in two processes that train as one, over gloo on the CPU.

Each process calls it with a folder of its own name below ``folder``; what it returns is handed
back, by rank.
"""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import torch
from lightning.fabric.plugins.environments.lightning import find_free_network_port


def in_two_processes(function, folder):
    """What ``function(folder)`` returns in each of two processes; it must be a module's own."""
    folder.mkdir(parents=True, exist_ok=True)
    shared = os.environ | {
        "TORCHELASTIC_RUN_ID": "test",  # as torchrun would start them
        "WORLD_SIZE": "2",
        "GROUP_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(find_free_network_port()),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    command = [sys.executable, __file__, function.__module__, function.__name__, str(folder)]
    processes = [
        subprocess.Popen(
            command,
            env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in (0, 1)
    ]
    try:
        said = [process.communicate(timeout=600)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert not any(process.returncode for process in processes), "\n".join(said)
    return [torch.load(folder / f"rank_{rank}.pt", weights_only=False) for rank in (0, 1)]


def meet_anew():
    """The next run of these processes meets at another port: the last may still be listened to."""
    if "WORLD_SIZE" in os.environ:
        os.environ["MASTER_PORT"] = str(int(os.environ["MASTER_PORT"]) + 1)


if __name__ == "__main__":
    module, name, to = sys.argv[1:]
    found = getattr(importlib.import_module(module), name)(Path(to))
    torch.save(found, Path(to) / f"rank_{os.environ['LOCAL_RANK']}.pt")
