"""unnoise-sample under torchrun: the same files as alone."""

import os
import subprocess
import sys

import pytest
from untrained import make_run

COMMAND = [sys.executable, "-c", "from unnoise.cli.sample import main; main()"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--no-python"]


@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 9])
def test_two_processes_draw_what_one_does(n, tmp_path):
    run = make_run(tmp_path / "run", "conditioning=sketch")
    drawn = {}
    for name, launcher in {"alone": [], "two": TORCHRUN}.items():
        out = tmp_path / name
        request = [f"run={run}", f"n={n}", "first=3", "steps=2", "device=cpu", f"out={out}"]
        subprocess.run(
            [*launcher, *COMMAND, *request],
            cwd=tmp_path,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            check=True,
            timeout=300,
        )
        files = (path for path in out.rglob("*") if path.is_file())
        drawn[name] = {path.relative_to(out): path.read_bytes() for path in files}
    assert len(drawn["alone"]) == n + 3  # a grid, an array and what was asked
    assert drawn["two"] == drawn["alone"]
