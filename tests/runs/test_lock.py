"""A run directory belongs to one process, and is free again however that process ends."""

import errno
import fcntl
import os
import platform
import signal
import subprocess
import sys
import time

import pytest

from unnoise.runs.layout import RunDirectory
from unnoise.runs.lock import RunLocked, check, held

HOLD = """
import sys, time
from pathlib import Path
from unnoise.runs.lock import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the directory."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_the_second_is_refused_with_process_host_and_time_of_the_first(tmp_path, holder):
    for refused in (check, lambda folder: held(folder).__enter__()):
        begun = time.monotonic()
        with pytest.raises(RunLocked) as told:
            refused(tmp_path)
        assert time.monotonic() - begun < 0.5
        assert str(told.value).startswith(
            f"{tmp_path} is being trained by process {holder.pid} "
            f"on host {platform.node()} since 20"
        )


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_lock_does_not_outlive_its_holder(tmp_path, holder, number):
    holder.send_signal(number)
    holder.wait()
    assert RunDirectory(tmp_path).lock.exists()
    check(tmp_path)
    with held(tmp_path):
        assert str(os.getpid()) in RunDirectory(tmp_path).lock.read_text()


def test_a_child_that_lives_on_does_not_keep_the_lock(tmp_path):
    """As the workers that read pictures do for some seconds after their rank was killed."""
    ours, child = os.pipe()
    keeper = os.fork()
    if keeper == 0:
        with held(tmp_path):
            grandchild = os.fork()
            if grandchild == 0:
                os.write(child, b"up")
                time.sleep(60)
            os.write(child, f" {grandchild} ".encode())
            time.sleep(0.2)
            os._exit(0)
    os.waitpid(keeper, 0)
    told = os.read(ours, 64)
    assert b"up" in told
    try:
        with held(tmp_path):
            pass
    finally:
        os.kill(int(told.replace(b"up", b"")), signal.SIGKILL)


def test_a_directory_that_nobody_has_trained_in_is_free(tmp_path):
    check(tmp_path / "no such run")
    assert not (tmp_path / "no such run").exists()


def test_a_lock_file_that_is_not_one_of_ours_still_refuses(tmp_path):
    ours, child = os.pipe()
    keeper = os.fork()
    if keeper == 0:
        with RunDirectory(tmp_path).lock.open("a+") as file:
            fcntl.lockf(file, fcntl.LOCK_EX)
            os.write(child, b"up")
            time.sleep(60)
    os.read(ours, 2)
    try:
        with pytest.raises(RunLocked, match="is being trained by another process"):
            check(tmp_path)
    finally:
        os.kill(keeper, signal.SIGKILL)
        os.waitpid(keeper, 0)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP])
def test_where_there_are_no_locks_a_warning_says_so(tmp_path, monkeypatch, capsys, number):
    def refuse(*arguments):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "lockf", refuse)
    with held(tmp_path):
        pass
    assert "cannot be locked" in capsys.readouterr().err
