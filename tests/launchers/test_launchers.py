"""Two processes train every job of every launcher, and leave nothing but its run directory."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch
import yaml
from faulty import TINY

from unnoise.cli import train

pytestmark = pytest.mark.faults

SETTINGS = [*TINY, "max_steps=4", "precision=fp32", "flip=true"]
TWO, SEEDS = "trainer=ddp_cpu", "seed=0,1"
COMMAND = [sys.executable, "-c", "from unnoise.cli.train import main; main()"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--no-python"]
SWEEPS = {
    "joblib": ["hydra/launcher=joblib", SEEDS],
    "submitit": ["hydra/launcher=submitit_local", SEEDS],
    "ray": ["hydra/launcher=ray", "+hydra.launcher.ray.init.num_cpus=2", SEEDS],
    "optuna": [
        *("hydra/sweeper=optuna", "hydra/sweeper/sampler=grid", "seed=choice(0,1)"),
        *("hydra.sweeper.n_trials=2", "hydra.sweeper.n_jobs=1"),
    ],
}


CACHES = ("torchinductor_",)  # torch's own
OURS = ("MASTER", "WORLD", "RANK", "LOCAL", "GROUP", "ROLE", "TORCHELASTIC", "OMP", "UNNOISE")


class Finished:
    """A command that was run in a folder, with a folder for temporary files of its own."""

    def __init__(self, folder, command):
        self.folder, self.mark = folder, f"UNNOISE_TEST={folder}"
        with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as temporary:
            name, value = self.mark.split("=")
            environment = {k: v for k, v in os.environ.items() if not k.startswith("UNNOISE")}
            environment |= {name: value, "TMPDIR": temporary, "OMP_NUM_THREADS": "1"}
            done = subprocess.run(
                command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600
            )
            self.left = {path.name for path in Path(temporary).iterdir()}
        self.status, self.said = done.returncode, done.stdout + done.stderr

    def processes(self, patience=15):
        """The command lines of those that it started and that still are after some seconds."""
        until = time.monotonic() + patience
        while (found := self._processes()) and time.monotonic() < until:
            time.sleep(0.2)
        for process in found:
            os.kill(process, signal.SIGKILL)
        return list(found.values())

    def _processes(self):
        found = {}
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark.encode() in (process / "environ").read_bytes().split(b"\0"):
                    found[int(process.name)] = (process / "cmdline").read_text()
            except OSError:
                continue
        return found


def jobs(folder):
    """The run directories below a folder, by their seed; one each."""
    runs = [path.parent for path in (folder / "outputs").glob("*/*/config.yaml")]
    seeds = [yaml.safe_load((run / "config.yaml").read_text())["seed"] for run in runs]
    assert len(set(seeds)) == len(runs)
    there = [path for path in (folder / "outputs" / "sprites").iterdir() if path.is_dir()]
    assert sorted(there) == sorted(runs)
    return dict(zip(seeds, runs, strict=True))


def weights(run):
    state = torch.load(run / "checkpoints" / "step_00000004.ckpt", weights_only=True)
    return state["state_dict"]


def is_trained(folder, alone, seeds, ranks=2):
    """Each seed has one run, of both ranks, which came out as if one process had trained it."""
    found = jobs(folder)
    assert set(found) == set(seeds)
    for seed, run in found.items():
        manifest = json.loads((run / "manifest.json").read_text())
        assert manifest["world_size"] == ranks
        assert "finished" in manifest
        expected, states = weights(alone[seed]), weights(run)
        assert expected.keys() == states.keys()
        for key in expected:
            torch.testing.assert_close(states[key], expected[key], rtol=0, atol=1e-6)
    return True


def in_process(monkeypatch, folder, *arguments):
    """The command in this process, and which variables of its ranks it leaves here."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["unnoise-train", *arguments])
    before = dict(os.environ)
    train.main()
    after = dict(os.environ)
    changed = {key for key in before | after if before.get(key) != after.get(key)}
    return {key for key in changed if key.startswith(OURS)}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The runs of both seeds on one device, by seed."""
    folder = tmp_path_factory.mktemp("alone")
    for seed in (0, 1):
        done = Finished(folder, [*COMMAND, *SETTINGS, "trainer=cpu", f"seed={seed}"])
        assert done.status == 0, done.said
    return jobs(folder)


def test_a_single_run_and_the_environment_that_it_leaves(tmp_path, alone, monkeypatch):
    assert in_process(monkeypatch, tmp_path, *SETTINGS, TWO) == set()
    assert is_trained(tmp_path, alone, [0])
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["sprites"]


def test_the_jobs_of_a_sweep_in_one_process(tmp_path, alone, monkeypatch):
    assert in_process(monkeypatch, tmp_path, "-m", *SETTINGS, TWO, SEEDS) == set()
    assert is_trained(tmp_path, alone, [0, 1])


@pytest.mark.parametrize("launcher", SWEEPS)
def test_the_jobs_of_a_launcher(tmp_path, alone, launcher):
    done = Finished(tmp_path, [*COMMAND, "-m", *SETTINGS, TWO, *SWEEPS[launcher]])
    assert done.status == 0, done.said
    assert is_trained(tmp_path, alone, [0, 1])
    assert done.processes() == []
    rays = ("ray", "pymp-") if launcher == "ray" else ()  # it keeps logs and kills its workers
    assert not [name for name in done.left if not name.startswith((*CACHES, *rays))]
    assert {path.name for path in tmp_path.iterdir()} == {"outputs"}


def test_torchrun(tmp_path, alone):
    done = Finished(tmp_path, [*TORCHRUN, *COMMAND, *SETTINGS, TWO])
    assert done.status == 0, done.said
    assert is_trained(tmp_path, alone, [0])
    assert done.said.count("draw more") == 1, "one of the two says where the results are"
    assert done.processes() == []
    logs = "torchelastic_"  # which torchrun leaves
    assert not [name for name in done.left if not name.startswith((*CACHES, logs))]


def test_ranks_with_different_configurations_are_told(tmp_path):
    script = tmp_path / "start.sh"
    command = f"{sys.executable} -c 'from unnoise.cli.train import main; main()'"
    script.write_text(f'[ $RANK = 1 ] && more=optimizer.lr=0.5\nexec {command} "$@" $more\n')
    done = Finished(
        tmp_path, [*TORCHRUN, "bash", str(script), *SETTINGS, TWO]
    )  # much sooner than rank_timeout
    assert done.status != 0
    told = "the ranks were started with another configuration than rank 0: rank 1: optimizer.lr"
    assert done.said.count(told) == 2, done.said  # each of the ranks
    assert done.processes() == []
    assert not [*tmp_path.glob("outputs/*/*")]


def test_another_number_of_processes_than_the_trainer_has_is_told(tmp_path):
    done = Finished(tmp_path, [*TORCHRUN, *COMMAND, *SETTINGS, "trainer=cpu"])
    assert done.status != 0
    assert "2 processes were started, but the trainer has 1" in done.said
    assert done.processes() == []
    assert not [*tmp_path.glob("outputs/*/*")]
