"""Dashboards and disks that fail while the real command trains: the run goes on, nothing is lost.

``full_disk`` mounts a small tmpfs, which takes root; without, those tests are skipped.
"""

import json
import os
import re
import signal
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from faulty import rows, run_of, said, start, wait_for_step

pytestmark = pytest.mark.faults
STEPS = 120
LONG = [f"max_steps={STEPS}", "callbacks.samples.every=1000", "validate_every=1000"]
OFFLINE = ["logger=wandb", "logger.mode=offline", "logger.system_metrics=false"]


def ends_well(process, folder, within=120):
    """The run takes all its steps, logs each, and ends with status 0; gives its warnings."""
    assert process.wait(within) == 0, said(folder)
    steps = [row["step"] for row in rows(run_of(folder)) if "train/loss" in row]
    assert steps == list(range(1, STEPS + 1))
    assert "finished" in json.loads((run_of(folder) / "manifest.json").read_text())
    assert "Traceback" not in said(folder)
    return re.findall("warning: .*", said(folder))


def core_of(process):
    """The number of wandb's own process."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        name, _, rest = stat.read_text().rpartition(")")
        if "wandb-core" in name and int(rest.split()[1]) == process.pid:
            return int(stat.parent.name)
    raise AssertionError("there is no wandb-core")


@contextmanager
def full_disk(folder, megabytes):
    """A small file system at ``folder``; gives a function that fills it, and one that frees it."""
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small file system takes root")
    filler = folder / ".filler"

    def fill():
        with filler.open("wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError:
                pass

    try:
        yield fill, filler.unlink
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_server_that_cannot_be_reached_costs_its_timeout_and_one_line(tmp_path):
    unreachable = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "a" * 40}
    process = start(tmp_path, *LONG, "logger=wandb", "logger.init_timeout=3", **unreachable)
    (warning,) = ends_well(process, tmp_path)
    assert "failed (no answer within 3 s) and is left out from step 0 on" in warning
    assert f"unnoise-replay {run_of(tmp_path)} sends it later" in warning
    manifest = json.loads((run_of(tmp_path) / "manifest.json").read_text())
    first = rows(run_of(tmp_path))[0]["time"]
    begun = time.mktime(time.strptime(manifest["started"][:19], "%Y-%m-%dT%H:%M:%S"))
    assert first - begun < 3 + 25, "the first step waited for little else"
    assert said(tmp_path).count("wandb") < 4, said(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["dead", "hanging"])
def test_wandbs_process_is_lost_in_the_middle(number, tmp_path):
    process = start(tmp_path, *LONG, *OFFLINE, "logger.finish_timeout=3")
    wait_for_step(process, tmp_path, 3)
    core = core_of(process)
    os.kill(core, number)
    (warning,) = ends_well(process, tmp_path)
    assert warning.startswith("warning: WeightsAndBiases failed ("), warning
    assert not Path(f"/proc/{core}").exists(), "nothing is left behind"


def test_a_full_disk_under_wandb_is_noticed(tmp_path):
    run = tmp_path / "outputs" / "sprites" / "x_y-z"
    with full_disk(run / "wandb", megabytes=8) as (fill, _):
        process = start(tmp_path, *LONG, *OFFLINE, f"hydra.run.dir={run}")
        wait_for_step(process, tmp_path, 3)
        fill()
        (warning,) = ends_well(process, tmp_path)
        assert "No space left on device" in warning


def test_metrics_jsonl_waits_for_space_and_is_complete(tmp_path):
    run = tmp_path / "outputs" / "sprites" / "x_y-z"
    with full_disk(run, megabytes=64) as (fill, free):
        process = start(tmp_path, *LONG, f"hydra.run.dir={run}")
        wait_for_step(process, tmp_path, 3)
        fill()
        until = time.monotonic() + 60
        while "cannot be written" not in said(tmp_path):
            assert process.poll() is None, said(tmp_path)
            assert time.monotonic() < until
            time.sleep(0.02)
        assert (run / "metrics.jsonl").read_bytes().endswith(b"\n"), "no line is cut"
        free()
        (warning,) = ends_well(process, tmp_path)
        assert "metrics.jsonl cannot be written (No space left on device)" in warning
