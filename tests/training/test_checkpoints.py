"""Checkpoints that are damaged are seen to be, and a disk that is full costs none of the old."""

import errno
import json
import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from lightning import Callback
from tiny import experiment

from unnoise.files import SUMS, whole, write_with_digest
from unnoise.runs.checkpoints import DamagedCheckpoints, checkpoints, newest_whole
from unnoise.runs.layout import step_of
from unnoise.training.callbacks import checkpoints as saving
from unnoise.training.callbacks.checkpoints import (
    Checkpoints,
    DurableCheckpointIO,
    NotFinite,
    NotSaved,
)
from unnoise.training.loop import fit


def steps(run_dir):
    return [step_of(path) for path in checkpoints(run_dir)]


def trained(run_dir, max_steps=6, **arguments):
    kept = Checkpoints(**({"every": 2, "keep": 3} | arguments))
    return fit(experiment({"checkpoints": kept}, max_steps=max_steps), {}, run_dir, None)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run with checkpoints of steps 2, 4 and 6."""
    return trained(tmp_path_factory.mktemp("finished"))


@pytest.fixture
def run(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def flip(path, place):
    """Turn one bit, at a part 0 … 1 of the file."""
    content = bytearray(path.read_bytes())
    content[min(int(place * len(content)), len(content) - 1)] ^= 1
    path.write_bytes(content)


def cut(path, place):
    os.truncate(path, int(place * path.stat().st_size))


def sums(run_dir):
    return (run_dir / "checkpoints" / SUMS).read_text()


# What is written, and in which order


def test_sha256sum_verifies_the_manifest(run):
    command = ["sha256sum", "--check", "--strict", SUMS]
    checked = subprocess.run(command, cwd=run / "checkpoints", capture_output=True, text=True)
    names = "".join(f"step_{step:08d}.ckpt: OK\n" for step in (2, 4, 6))
    assert (checked.returncode, checked.stdout) == (0, names), checked.stderr


def test_synced_and_noted_before_it_has_its_name(tmp_path, monkeypatch):
    told, sync, rename = [], os.fsync, Path.replace

    def fsync(descriptor):
        told.append(("sync", Path(os.readlink(f"/proc/self/fd/{descriptor}"))))
        sync(descriptor)

    def replace(source, target):
        told.append(("rename", target))
        assert source.parent == target.parent
        return rename(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    path = tmp_path / "step_00000001.ckpt"
    DurableCheckpointIO().save_checkpoint({"a": torch.ones(3)}, path)
    noted = told.index(("rename", tmp_path / SUMS))
    named = told.index(("rename", path))
    assert noted < named
    assert told[noted + 1] == ("sync", tmp_path), "the digest is on disk before the name is"
    assert told[named - 1][0] == "sync"
    assert path.name in told[named - 1][1].name, "the content is on disk before the name is"
    assert told[named + 1 :] == [("sync", tmp_path)]


def test_a_name_is_whole_before_and_after_it_is_overwritten(tmp_path, monkeypatch):
    path = tmp_path / "step_00000001.ckpt"
    write_with_digest(path, lambda temporary: temporary.write_text("old"))
    rename = Path.replace

    def killed(source, target):
        if target == path:
            raise KeyboardInterrupt
        return rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            write_with_digest(path, lambda temporary: temporary.write_text("new"))
    assert path.read_text() == "old"
    assert whole(path)
    write_with_digest(path, lambda temporary: temporary.write_text("newer"))
    assert path.read_text() == "newer"
    assert whole(path)
    assert len((tmp_path / SUMS).read_text().splitlines()) == 1


def test_what_a_killed_process_was_writing_is_removed_at_the_next_start(run):
    left = run / "checkpoints" / ".step_00000008.ckpt.0123.tmp"
    left.write_bytes(b"half")
    fit(experiment(max_steps=8), {}, run, newest_whole(run))
    assert not left.exists()
    assert steps(run) == [4, 6, 8]


# Damage


@pytest.mark.parametrize("place", [0.0, 0.001, 0.01, 0.2, 0.5, 0.8, 0.99, 1.0])
def test_a_turned_bit_anywhere_is_seen(run, capsys, place):
    newest = checkpoints(run)[-1]
    flip(newest, place)
    assert newest_whole(run) == checkpoints(run)[-1]
    assert steps(run) == [2, 4]
    assert newest.with_name(f"{newest.name}.damaged").exists()
    told = capsys.readouterr().err
    assert f"{newest} is damaged" in told
    assert "step_00000004.ckpt" in told
    newest_whole(run)
    assert capsys.readouterr().err == "", "it is told once"


@pytest.mark.parametrize("place", [0.0, 0.1, 0.5, 0.9, 0.9999])
def test_a_file_cut_short_is_seen(run, place):
    cut(checkpoints(run)[-1], place)
    assert step_of(newest_whole(run)) == 4


def test_of_two_damaged_ones_the_third_is_taken_and_the_run_ends_the_same(run, finished, capsys):
    for path in checkpoints(run)[1:]:
        flip(path, random.Random(path.name).random())
    start = newest_whole(run)
    assert step_of(start) == 2
    told = capsys.readouterr().err
    assert "step_00000004.ckpt is damaged" in told
    assert "step_00000006.ckpt is damaged" in told
    fit(experiment(max_steps=6), {}, run, start)
    a, b = (torch.load(checkpoints(each)[-1])["state_dict"] for each in (run, finished))
    assert all(torch.equal(a[key], b[key]) for key in a)
    told = [
        [json.loads(line)["step"] for line in (each / "metrics.jsonl").open()]
        for each in (run, finished)
    ]
    assert told[0] == told[1], "what came after step 2 was told once"


def test_a_run_without_a_whole_checkpoint_never_starts_anew(run):
    for path in checkpoints(run):
        cut(path, 0.7)
    for _ in range(2):  # the second time, too
        with pytest.raises(DamagedCheckpoints, match=r"every checkpoint of .* is damaged"):
            newest_whole(run)
    assert steps(run) == [2, 4, 6]


def test_a_run_that_has_not_begun_has_no_checkpoint(tmp_path):
    assert newest_whole(tmp_path) is None


@pytest.mark.parametrize("damage", [flip, cut])
def test_a_copy_without_digests_is_known_by_its_checksums(run, damage):
    (run / "checkpoints" / SUMS).unlink()
    assert step_of(newest_whole(run)) == 6
    damage(checkpoints(run)[-1], 0.5)
    assert step_of(newest_whole(run)) == 4


def test_what_is_no_checkpoint_at_all_is_damaged(tmp_path):
    (tmp_path / "step_00000001.ckpt").write_bytes(b"no archive")
    assert not whole(tmp_path / "step_00000001.ckpt")


def test_unreadable_digests_are_as_none(run):
    (run / "checkpoints" / SUMS).write_bytes(b"\xff\x00 damaged\n")
    assert step_of(newest_whole(run)) == 6


# Which stay


def test_a_run_starts_with_a_checkpoint(tmp_path):
    trained(tmp_path, max_steps=3, every=10)
    assert steps(tmp_path) == [0, 3]


def test_the_newest_stay_and_those_of_certain_steps(tmp_path):
    trained(tmp_path, max_steps=10, every=2, keep=2, keep_every=3)
    assert steps(tmp_path) == [3, 6, 9, 10]
    named = [line.split("  ")[1] for line in sums(tmp_path).splitlines()]
    assert named == [path.name for path in checkpoints(tmp_path)]


# A disk that is full


class Full:
    """While a step from ``first`` to ``last`` is saved, the disk takes half of it."""

    def __init__(self, monkeypatch, first, last):
        self.first, self.last, write = first, last, saving._write

        def half(content, path):
            write(content, path)
            if self.first <= content["global_step"] <= self.last:
                cut(path, 0.5)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(saving, "_write", half)


def assert_whole_and_alone(run_dir):
    """Nothing is there but whole checkpoints and their digests."""
    assert all(whole(path) for path in checkpoints(run_dir))
    named = {path.name for path in (run_dir / "checkpoints").iterdir()} - {SUMS}
    assert named == {path.name for path in checkpoints(run_dir)}


def test_a_full_disk_costs_a_checkpoint_and_not_the_run(tmp_path, monkeypatch, capsys):
    Full(monkeypatch, 4, 4)
    trained(tmp_path, on_full_disk="continue")
    assert steps(tmp_path) == [0, 2, 6]
    assert_whole_and_alone(tmp_path)
    told = capsys.readouterr().err
    assert "the checkpoint of step 4 could not be written" in told
    assert "No space left on device" in told
    assert "next try at step 6" in told


def test_a_full_disk_ends_the_run_if_asked_to(tmp_path, monkeypatch, capsys):
    Full(monkeypatch, 4, 4)
    with pytest.raises(NotSaved, match=r"step 4 could not be written: .*No space left"):
        trained(tmp_path, on_full_disk="stop")
    assert steps(tmp_path) == [0, 2]
    assert_whole_and_alone(tmp_path)
    assert "the run ends" in capsys.readouterr().err
    assert "NotSaved" in json.loads((tmp_path / "manifest.json").read_text())["failed"]


def test_a_run_without_its_last_checkpoint_has_not_ended_well(tmp_path, monkeypatch):
    Full(monkeypatch, 5, 6)
    with pytest.raises(NotSaved):
        trained(tmp_path, on_full_disk="continue")
    assert "finished" not in json.loads((tmp_path / "manifest.json").read_text())
    monkeypatch.undo()
    fit(experiment(max_steps=6), {}, tmp_path, newest_whole(tmp_path))
    assert steps(tmp_path)[-1] == 6
    assert "finished" in json.loads((tmp_path / "manifest.json").read_text())


def test_what_torch_says_of_a_full_disk_is_an_oserror(tmp_path):
    """/dev/full is full, always."""
    (tmp_path / "full").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as told:
        saving._write({"a": torch.zeros(100_000)}, tmp_path / "full")
    assert told.value.errno == errno.ENOSPC


# Weights that are not finite


class Break(Callback):
    """Puts a value into a weight, or into the average, after some step."""

    def __init__(self, value, averaged, step):
        self.value, self.averaged, self.step = value, averaged, step

    def on_train_batch_end(self, trainer, module, *args):
        if trainer.global_step == self.step:
            model = module.ema.model if self.averaged else module.model
            with torch.no_grad():
                next(model.parameters()).view(-1)[0] = self.value


@pytest.mark.parametrize("averaged", [False, True])
@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_no_checkpoint_has_a_weight_that_is_not_finite(tmp_path, value, averaged):
    callbacks = {"break": Break(value, averaged, 4), "checkpoints": Checkpoints(2, 3)}
    broken = experiment(max_steps=6)
    broken.callbacks.clear()
    broken.callbacks.update(callbacks)
    with pytest.raises(NotFinite, match="step 4"):
        fit(broken, {}, tmp_path, None)
    assert steps(tmp_path) == [0, 2]


def test_a_norm_may_overflow():
    assert saving._finite({"a": torch.full((4,), 3e38), "n": torch.tensor(1)})
    assert not saving._finite({"a": torch.tensor([1.0, float("nan")]), "b": torch.ones(2).half()})
