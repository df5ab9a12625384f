"""Who starts the ranks of a run: the command itself, torchrun or srun; on how many machines."""

import os
import sys

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from test_train import TINY, check

from unnoise.cli import train
from unnoise.config.compose import CONF
from unnoise.distributed import group as ranks
from unnoise.distributed.devices import count
from unnoise.distributed.environment import Place, place, requeued
from unnoise.distributed.launcher import RankFailed, train_on_ranks

ALLOCATION = {
    "SLURM_JOB_ID": "7",
    "SLURM_NTASKS": "4",
    "SLURM_NTASKS_PER_NODE": "4",
    "SLURM_PROCID": "0",
}
"""What sbatch and salloc set, in which nothing has been started yet."""


def step(tasks):
    """What srun sets."""
    count = {"SLURM_NTASKS": str(tasks), "SLURM_STEP_NUM_TASKS": str(tasks)}
    return ALLOCATION | {"SLURM_STEP_ID": "0"} | count


@pytest.fixture(autouse=True)
def bare(monkeypatch):
    for name in [*os.environ]:
        if name.startswith(("SLURM", "TORCHELASTIC", "WORLD", "RANK", "LOCAL_RANK")):
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("variables", "nodes", "processes", "as_rank", "lightnings"),
    [
        ({}, 1, 1, False, "LightningEnvironment"),
        (ALLOCATION, 1, 1, False, "LightningEnvironment"),
        (step(1), 1, 1, False, "LightningEnvironment"),
        (step(2), 2, 2, False, "Srun"),
        (step(2), 1, 2, True, "Srun"),
        (step(8), 2, 8, True, "Srun"),
        ({"WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "x"}, 2, 2, True, "TorchElasticEnvironment"),
    ],
    ids=["alone", "salloc", "one task", "one a node", "ranks", "ranks on nodes", "torchrun"],
)
def test_who_starts_the_ranks(variables, nodes, processes, as_rank, lightnings, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    here = place()
    assert (here.world_size, here.trains(nodes)) == (processes, as_rank)
    assert type(ranks.lightning_environment()).__name__ == lightnings


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, Place()),
        (ALLOCATION, Place()),
        ({"WORLD_SIZE": "2", "LOCAL_RANK": "1"}, Place(1, 1, 2, "torchrun")),
        ({"WORLD_SIZE": "8", "RANK": "5", "LOCAL_RANK": "1"}, Place(5, 1, 8, "torchrun")),
        (step(4) | {"SLURM_PROCID": "2", "SLURM_LOCALID": "0"}, Place(2, 0, 4, "srun")),
        (step(4) | {"WORLD_SIZE": "8", "RANK": "5"}, Place(5, 0, 8, "torchrun")),
    ],
    ids=["alone", "salloc", "one machine", "torchrun", "srun", "torchrun below srun"],
)
def test_processes_know_their_rank_however_they_were_started(variables, expected, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert place() == expected


def test_a_job_knows_that_it_runs_again(monkeypatch):
    assert not requeued()
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert requeued()


@pytest.mark.parametrize("variables", [{}, step(3)], ids=["alone", "three tasks"])
def test_several_machines_need_a_process_on_each(variables, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RankFailed, match=r"num_nodes is 2, but [13] .*hydra/launcher=slurm"):
        train_on_ranks([], devices=2, nodes=2)


@pytest.mark.parametrize("variables", [{"WORLD_SIZE": "2"}, step(2)], ids=["torchrun", "srun"])
def test_both_numbers_of_processes_are_told(variables, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with (
        pytest.raises(
            ranks.ConfigMismatch, match="2 processes were started, but the trainer has 1"
        ),
        ranks.together(1, "cpu", 9),
    ):
        pass


def test_srun_that_does_not_say_how_many_a_machine_has_is_told(monkeypatch):
    for name, value in step(2).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("SLURM_NTASKS_PER_NODE")
    with (
        pytest.raises(ranks.ConfigMismatch, match="use --ntasks-per-node"),
        ranks.together(2, "cpu", 9),
    ):
        pass


def test_a_refused_start_leaves_no_directory(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(sys, "argv", ["unnoise-train", *TINY, "trainer=cpu"])
    with pytest.raises(SystemExit, match="2 processes were started"):
        train.main()
    assert not [*tmp_path.glob("outputs/*/*")]


@pytest.mark.parametrize(
    ("devices", "expected"),
    [(3, 3), ("3", 3), ([0, 2], 2), ("0,2", 2), ("1,", 1), ("auto", 8), (-1, 8), ("-1", 8)],
)
def test_how_many_devices_are_meant(devices, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    assert count(devices, "gpu") == expected
    assert count(devices, "cpu") == (1 if expected == 8 else expected)


@pytest.mark.parametrize(
    ("trainer", "told"),
    [
        (["trainer=ddp_cpu"], "batch_size: 9 does not divide into 2 parts (accumulate 1 × 2 "),
        (["trainer=cpu", "trainer.devices='0,1'"], "batch_size: 9 does not divide into 2 parts"),
        (["trainer=cpu", "trainer.num_nodes=2"], "× 1 trainer.devices × 2 trainer.num_nodes"),
        (["trainer=cpu", "trainer.devices=two"], "trainer.devices: is a number, a list of numbers"),
        (["trainer=cpu", "trainer.devices=0"], "trainer.devices: 0 of them can train nothing"),
    ],
    ids=str,
)
def test_a_batch_that_does_not_divide_among_ranks_is_told(trainer, told):
    found = check("batch_size=9", *trainer)
    assert any(told in problem for problem in found), found


@pytest.mark.parametrize(
    ("launcher", "expected"),
    [
        ("slurm", {"nodes": 3, "tasks_per_node": 1, "gpus_per_node": 4}),
        ("ray_cluster", {"ray.init.address": "auto", "ray.remote.num_gpus": 4}),
    ],
)
def test_presets_of_clusters_ask_for_what_the_trainer_uses(launcher, expected):
    GlobalHydra.instance().clear()
    asked = [f"hydra/launcher={launcher}", "trainer=slurm", "trainer.devices=4"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", [*asked, "trainer.num_nodes=3"], return_hydra_config=True)
    found = {key: OmegaConf.select(config, f"hydra.launcher.{key}") for key in expected}
    assert found == expected
