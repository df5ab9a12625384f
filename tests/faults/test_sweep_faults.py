"""Sweeps that are killed and run again, for real: grids, searches, and one job a GPU."""

import json
import os
import signal
from itertools import pairwise

import optuna
import pytest
import torch
from faulty import rows, said, start, wait_for_step

from unnoise.runs.checkpoints import newest_whole

pytestmark = pytest.mark.faults
SMALL = (
    "data.size=200",
    "data.validation_size=20",
    "validate_every=5",
    "callbacks.samples.every=50",
)


def ended(process, timeout=240):
    return process.wait(timeout)


def runs(folder):
    return sorted((folder / "outputs").glob("*/*_*-*"))


def manifest(run):
    return json.loads((run / "manifest.json").read_text())


def summary(folder):
    """The rows of the last summary that was printed."""
    lines = said(folder).splitlines()
    head = max(k for k, line in enumerate(lines) if line.startswith("state "))
    return [line for line in lines[head + 1 :] if "=" in line and "study" not in line]


def test_a_sweep_that_is_killed_goes_on_and_ends_as_if_it_had_not_been(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    grid = ("seed=1,2", "max_steps=30", "callbacks.checkpoints.every=5", *SMALL, "-m")
    assert ended(start(whole, *grid)) == 0
    process = start(killed, *grid)
    wait_for_step(process, killed, 12)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert ended(start(killed, "sweep=status", *grid)) == 0
    assert [line.split()[0] for line in summary(killed)] == ["interrupted", "to"]
    assert ended(start(killed, *grid)) == 0
    assert [line.split()[0] for line in summary(killed)] == ["finished", "finished"]
    assert "resuming" in said(killed)
    assert len(runs(killed)) == 2
    by_name = {run.name.rpartition("_")[2]: run for run in runs(whole)}
    for run in runs(killed):
        other = by_name[run.name.rpartition("_")[2]]
        a, b = (torch.load(newest_whole(r), weights_only=True)["state_dict"] for r in (run, other))
        assert all(torch.equal(a[key], b[key]) for key in a | b)
        assert [line.get("validation/loss") for line in rows(run)] == [
            line.get("validation/loss") for line in rows(other)
        ]


def test_a_search_that_is_killed_goes_on_and_prunes_what_is_worse(tmp_path):
    search = (
        *("hparams_search=learning_rate", "hydra.sweeper.study_name=s", "max_steps=20"),
        *("callbacks.checkpoints.every=5", "callbacks.pruning.pruner.n_startup_trials=1", *SMALL),
    )
    process = start(tmp_path, *search, "hydra.sweeper.n_trials=1", "-m")
    wait_for_step(process, tmp_path, 7)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    storage = f"sqlite:///{tmp_path}/outputs/studies.db"
    (first,) = optuna.load_study("s", storage).trials
    assert first.state.name == "RUNNING"
    assert 5 in first.intermediate_values
    assert ended(start(tmp_path, *search, "hydra.sweeper.n_trials=1", "-m")) == 0
    assert len(runs(tmp_path)) == 1
    assert "resuming" in said(tmp_path)
    stopped, again = optuna.load_study("s", storage).trials
    assert (stopped.state.name, again.state.name) == ("FAIL", "COMPLETE")
    assert again.params == first.params
    study = optuna.load_study("s", storage)
    for _ in range(2):  # nothing can be as good as these
        study.add_trial(
            optuna.trial.create_trial(
                params=first.params,
                distributions=first.distributions,
                value=0.0,
                intermediate_values={5: 0.0, 10: 0.0, 15: 0.0, 20: 0.0},
            )
        )
    assert ended(start(tmp_path, *search, "hydra.sweeper.n_trials=2", "-m")) == 0
    (pruned,) = [run for run in runs(tmp_path) if "pruned" in manifest(run)]
    assert manifest(pruned)["steps"] == 5
    assert "validation/loss" in manifest(pruned)["pruned"]
    last = optuna.load_study("s", storage).trials[-1]
    assert last.value == [r["validation/loss"] for r in rows(pruned) if "validation/loss" in r][-1]
    assert sorted(line.split()[0] for line in summary(tmp_path)) == ["finished", "pruned"]


def test_each_gpu_has_one_job_at_a_time_and_all_are_run(tmp_path):
    """Two GPUs that are not there, four jobs; each notes which GPU Ray gave it, and when."""
    process = start(
        tmp_path,
        *("seed=1,2,3,4", "max_steps=6", "hydra/launcher=gpus", *SMALL),
        *("+hydra.launcher.ray.init.num_gpus=2", "+hydra.launcher.ray.init.num_cpus=2"),
        *("trainer=cpu", "-m"),
    )
    assert ended(process, 400) == 0, said(tmp_path)
    assert [line.split()[0] for line in summary(tmp_path)] == ["finished"] * 4
    jobs = {}
    for run in runs(tmp_path):
        times = [row["time"] for row in rows(run)]
        jobs.setdefault(manifest(run)["visible_devices"], []).append((min(times), max(times)))
    assert sorted(jobs) == ["0", "1"]
    assert sum(map(len, jobs.values())) == 4
    for spans in jobs.values():
        assert all(one[1] < two[0] for one, two in pairwise(sorted(spans)))
