"""kill -9 while checkpoints are written, a disk that is full, and files that were damaged."""

import os
import random
import re
import shutil
import signal
import subprocess
import time

import pytest
import torch
from faulty import run_of, said, start, wait_for_step

from unnoise.files import SUMS, remove_with_digest, whole
from unnoise.runs.checkpoints import checkpoints, newest_whole
from unnoise.runs.layout import step_of
from unnoise.training.callbacks.checkpoints import DurableCheckpointIO

pytestmark = pytest.mark.faults

KILLS = 50


def content(step):
    """2 MB that say of which step they are."""
    return {"global_step": step, "weights": [torch.full((50_000,), float(step + k))
                                             for k in range(10)]}  # fmt: skip


def write_for_ever(run):
    """Save step after step as a run does, from the newest whole one on."""
    newest = newest_whole(run)
    step = 0 if newest is None else step_of(newest)
    while True:
        step += 1
        path = run / "checkpoints" / f"step_{step:08d}.ckpt"
        writer = DurableCheckpointIO()
        writer.save_checkpoint(content(step), path)
        assert writer.failure is None
        remove_with_digest(checkpoints(run)[:-2])


def test_fifty_kills_while_checkpoints_are_written(tmp_path, capfd):
    draw, reached, unfinished = random.Random(0), 0, 0
    for _ in range(KILLS):
        child = os.fork()
        if child == 0:
            try:
                write_for_ever(tmp_path)
            finally:
                os._exit(1)
        until = time.monotonic() + 60  # one more is whole, so that a kill meets the next ones
        while not any(step_of(path) > reached for path in checkpoints(tmp_path)):
            assert time.monotonic() < until
            time.sleep(0.002)
        time.sleep(draw.uniform(0, 0.1))
        os.kill(child, signal.SIGKILL)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
        unfinished += any((tmp_path / "checkpoints").glob(".step_*.tmp"))
        for left in (tmp_path / "checkpoints").glob(".*.tmp"):
            left.unlink()  # as the next start does
        there = checkpoints(tmp_path)
        assert all(whole(path) for path in there)
        newest = newest_whole(tmp_path)
        assert newest == there[-1]
        assert step_of(newest) > reached
        reached = step_of(newest)
        read, meant = torch.load(newest, weights_only=True), content(reached)
        assert all(map(torch.equal, read["weights"], meant["weights"]))
    assert "damaged" not in capfd.readouterr().err
    assert unfinished > KILLS // 5, "the kills met no writing"
    print(f"{KILLS} kills, {unfinished} of them while a file was written; step {reached}")


SAVING = ("max_steps=400", "callbacks.checkpoints.every=20")


def final(run):
    state = torch.load(run / "checkpoints" / "step_00000400.ckpt", weights_only=True)
    return state["state_dict"], state["optimizer_states"][0]["state"]


def assert_equal(a, b):
    (weights, moments), (others, other_moments) = final(a), final(b)
    assert weights.keys() == others.keys()
    assert all(torch.equal(weights[key], others[key]) for key in weights)
    for key, values in moments.items():
        assert all(torch.equal(value, other_moments[key][k]) for k, value in values.items())


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert start(folder, *SAVING).wait(300) == 0, said(folder)
    return run_of(folder)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_command_killed_twice_ends_as_if_it_had_not_been(tmp_path, uninterrupted, workers):
    draw = random.Random(workers)
    extra = () if workers == 0 else (f"workers={workers}",)
    for between, resume in (((30, 120), ()), ((180, 300), ("resume=true",))):
        process = start(tmp_path, *SAVING, *extra, *resume)
        wait_for_step(process, tmp_path, draw.randint(*between))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert start(tmp_path, *SAVING, *extra, "resume=true").wait(300) == 0, said(tmp_path)
    assert said(tmp_path).count("resuming") == 2
    assert_equal(run_of(tmp_path), uninterrupted)


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_taken(tmp_path, uninterrupted):
    run = tmp_path / "outputs" / "sprites" / uninterrupted.name
    shutil.copytree(uninterrupted, run)
    before, newest = checkpoints(run)
    damaged = bytearray(newest.read_bytes())
    damaged[len(damaged) // 3] ^= 4
    newest.write_bytes(damaged)
    assert start(tmp_path, *SAVING, "resume=true").wait(300) == 0, said(tmp_path)
    told = said(tmp_path)
    assert f"{newest.name} is damaged" in told
    assert f"at step {step_of(before)}" in told
    assert_equal(run, uninterrupted)
    for path in checkpoints(run):
        os.truncate(path, 1000)
    assert start(tmp_path, *SAVING, "resume=true").wait(300) == 2
    assert "every checkpoint of" in said(tmp_path)
    assert "Traceback" not in said(tmp_path)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 24 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root can mount a small file system")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder, leave):
    """Let a file grow until only ``leave`` bytes are free."""
    told = os.statvfs(folder)
    with (folder / "filler").open("ab") as file:
        file.write(bytes(max(0, told.f_bavail * told.f_frsize - leave)))


@pytest.mark.parametrize("then", ["continue", "stop"])
def test_a_full_disk(small_disk, then):
    options = ("max_steps=1500", "callbacks.checkpoints.every=20")
    process = start(small_disk, *options, f"callbacks.checkpoints.on_full_disk={then}")
    try:
        run = wait_for_step(process, small_disk, 45)
        size = checkpoints(run)[0].stat().st_size
        until = time.monotonic() + 120
        while "could not be written" not in said(small_disk):
            fill(small_disk, leave=size // 2)
            assert process.poll() is None, said(small_disk)
            assert time.monotonic() < until, said(small_disk)
            time.sleep(0.05)
        there = checkpoints(run)
        assert len(there) >= 2
        assert all(whole(path) for path in there)
        if then == "continue":
            (small_disk / "filler").unlink()
        status = process.wait(300)
    finally:
        process.kill()
    told = said(small_disk)
    assert "Traceback" not in told
    assert re.search(r"checkpoint of step \d+ could not be written: .*No space left", told)
    if then == "continue":
        assert status == 0, told
        assert step_of(checkpoints(run)[-1]) == 1500
    else:
        assert status == 1, told
        assert "the run ends" in told
    assert all(whole(path) for path in checkpoints(run))
    assert not [each for each in (run / "checkpoints").iterdir()
                if each not in checkpoints(run) and each.name != SUMS]  # fmt: skip
