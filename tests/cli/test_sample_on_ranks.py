"""unnoise-sample on two ranks: the same files as alone, whatever starts them."""

import os
import socket
import subprocess
import sys

import pytest
from untrained import make_run

COMMAND = [sys.executable, "-c", "from unnoise.cli.sample import main; main()"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--no-python"]
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}


def alone(command, folder):
    subprocess.run(command, cwd=folder, env=ONE_THREAD, check=True, timeout=300)


def torchrun(command, folder):
    alone([*TORCHRUN, *command], folder)


def free(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def srun(command, folder):
    """What ``srun -n 2`` does: two processes of a step, which meet at a port made of the job id."""
    job = next(number for number in range(70000, 80000) if free(number % 10000 + 15000))
    step = {
        "SLURM_JOB_ID": str(job),
        "SLURM_NODELIST": "127.0.0.1",
        "SLURM_NTASKS": "2",
        "SLURM_STEP_NUM_TASKS": "2",
    }
    numbers = [{"SLURM_PROCID": str(k), "SLURM_LOCALID": str(k)} for k in (0, 1)]
    ranks = [subprocess.Popen(command, cwd=folder, env=ONE_THREAD | step | k) for k in numbers]
    try:
        assert [rank.wait(timeout=300) for rank in ranks] == [0, 0]
    finally:
        for rank in ranks:
            rank.kill()


@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 9])
@pytest.mark.parametrize("launcher", [torchrun, srun])
def test_two_processes_draw_what_one_does(launcher, n, tmp_path):
    run = make_run(tmp_path / "run", "conditioning=sketch")
    drawn = []
    for start in (alone, launcher):
        out = tmp_path / start.__name__
        request = [f"run={run}", f"n={n}", "first=3", "steps=2", "device=cpu", f"out={out}"]
        start([*COMMAND, *request], tmp_path)
        files = (path for path in out.rglob("*") if path.is_file())
        drawn.append({path.relative_to(out): path.read_bytes() for path in files})
    assert len(drawn[0]) == n + 3  # a grid, an array and the request
    assert drawn[1] == drawn[0]
