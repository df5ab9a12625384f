"""Ranks that are killed or stopped, a supervisor that is killed, and torchrun's restarts."""

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time

import pytest
from faulty import COMMAND, TINY, said
from two_ranks import ENDLESS, STEPPING, Run, alive

pytestmark = pytest.mark.faults

TIMEOUT = 8  # seconds that a rank waits for another


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return Run(
        tmp_path_factory.mktemp("run"), "trainer=ddp_cpu", f"rank_timeout={TIMEOUT}", *STEPPING
    )


@pytest.fixture(autouse=True)
def nothing_stays(run):
    yield
    run.kill()


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_ends_the_others(run, rank):
    run.go_on()
    last = run.last()
    os.kill(run.ranks[rank], signal.SIGKILL)
    took, status = run.end(5)
    assert status == 137
    assert f"rank {rank} was killed by SIGKILL" in run.said()
    assert "Traceback" not in run.said()
    if rank == 1:
        assert run.saved() >= last, "rank 0 lived to save the step"
    print(f"{took:.1f} s")


@pytest.mark.parametrize("rank", [0, 1])
def test_a_stopped_rank_is_waited_for_as_configured(run, rank):
    run.go_on()
    last = run.last()
    os.kill(run.ranks[rank], signal.SIGSTOP)
    took, status = run.end(TIMEOUT + 5)
    assert took > TIMEOUT - 2
    assert status == 124
    assert f"another rank did not answer within rank_timeout={TIMEOUT} seconds" in run.said()
    assert "Traceback" not in run.said()
    assert run.saved() >= last
    print(f"{took:.1f} s")


def test_ranks_do_not_outlive_their_supervisor(run):
    run.go_on()
    last = run.last()
    run.process.kill()
    took, _ = run.end(10)
    assert run.saved() >= last
    print(f"{took:.1f} s")


def test_a_second_run_in_the_directory_is_refused(run):
    run.go_on()
    before = os.times()
    refused = subprocess.run(
        [*COMMAND, *TINY, *ENDLESS, *run.overrides, f"resume={run.directory}"],
        cwd=run.folder,
        capture_output=True,
        text=True,
        timeout=60,
    )
    after = os.times()
    took = sum(after[2:4]) - sum(before[2:4])  # of computing: the other run does so meanwhile
    assert refused.returncode == 2
    assert f"is being trained by process {run.ranks[0]} on host " in refused.stderr
    assert took < 2
    print(f"{took:.1f} s")
    run.wait_for(run.last() + 2)  # the first did not notice


@pytest.mark.parametrize("trainer", ["cpu", "ddp_cpu"])
def test_a_second_ctrl_c_ends_at_once(tmp_path, trainer):
    """In a terminal, of which all processes get it; the first is caught in a long drawing."""
    run, (ours, theirs) = Run(tmp_path), pty.openpty()
    tmp_path.mkdir(exist_ok=True)
    (tmp_path / "said.txt").touch()
    slow = ("callbacks.forward_process.pictures=4", f"trainer={trainer}")
    run.process = subprocess.Popen(
        [*COMMAND, *TINY, *ENDLESS, *STEPPING, *slow],
        cwd=tmp_path,
        stdin=theirs,
        stdout=(tmp_path / "said.txt").open("ab"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=lambda: _take_terminal(theirs),
    )
    try:
        run.wait_for(5)
        for pid in run.ranks.values():
            os.kill(pid, signal.SIGSTOP)  # they cannot end
        os.write(ours, b"\x03")
        if run.ranks:
            time.sleep(1)
            assert alive(run.process.pid), run.said()
            os.write(ours, b"\x03")
            time.sleep(1)
            assert not alive(run.process.pid) or run.process.poll() == 130
            for pid in run.ranks.values():
                os.kill(pid, signal.SIGCONT)
        _, status = run.end(10)
        assert status == 130
    finally:
        run.kill()
        os.close(ours)
        os.close(theirs)


def _take_terminal(terminal):
    import fcntl
    import termios

    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)


def test_torchrun_starts_a_killed_run_again_and_it_goes_on(tmp_path):
    """In the directory of the first attempt."""
    torchrun = shutil.which("torchrun", path=os.path.dirname(sys.executable))
    options = ["--standalone", "--nproc-per-node=2", "--max-restarts=2", "--no-python"]
    command = [torchrun, *options, *COMMAND, *TINY, *STEPPING, "trainer=ddp_cpu"]
    run = Run(tmp_path)
    with (tmp_path / "said.txt").open("ab") as out:
        run.process = subprocess.Popen(
            [*command, "max_steps=60", "callbacks.checkpoints.every=1000000"],
            cwd=tmp_path,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        run.wait_for(5)
        os.kill(run.ranks[1], signal.SIGKILL)
        assert run.process.wait(180) == 0, said(tmp_path)
        assert len(list((tmp_path / "outputs" / "sprites").iterdir())) == 1
        told = json.loads((run.directory / "manifest.json").read_text())
        assert (told["steps"], len(told["resumed"])) == (60, 1)
        assert "finished" in told
        assert run.saved() == 60
    finally:
        run.kill()
