"""Two ranks, hurt from outside: they save, they end soon, and nothing stays behind.

One run is hurt again and again; each time it goes on from where it was. As imports take longer than
all the rest, most ranks are forked from this process, with this process as their supervisor: it
ends the others when one has ended, as torchrun's agent does. The command itself is hurt, too.
"""

import os
import signal
import sys
import time
import traceback
from functools import partial

import pytest
from lightning import Callback, Trainer
from lightning.fabric.plugins.environments.lightning import find_free_network_port
from two_ranks import STEPPING, Run, alive, rows

from unnoise.distributed.group import RankLost
from unnoise.distributed.launcher import LOST
from unnoise.runs.checkpoints import newest_whole
from unnoise.runs.layout import step_of
from unnoise.training.callbacks.checkpoints import Checkpoints
from unnoise.training.callbacks.metrics import TrainingMetrics
from unnoise.training.loop import fit

pytestmark = pytest.mark.faults

SOON = 10  # seconds in which a run ends after a signal
LONG = 120  # seconds; what takes as long is not waited for


class Busy(Callback):
    """Takes long in a hook, on some ranks, from a step on; says so in a file."""

    def __init__(self, hook, ranks, step, told):
        self.ranks, self.step, self.told = ranks, step, told
        if hook is not None:
            setattr(self, hook, self._run)

    def _run(self, trainer, *arguments, **named):
        if trainer.global_rank in self.ranks and trainer.global_step >= self.step:
            self.told.touch()
            time.sleep(LONG)


def train(rank, port, folder, hook, ranks, before):
    """Be a rank."""
    from tiny import experiment

    os.setsid()
    sys.stdout = sys.stderr = (folder / f"said_{rank}.txt").open("a", buffering=1)
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "GROUP_RANK": "0",
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "test",
    }
    run = folder / "run"
    callbacks = {
        "metrics": TrainingMetrics(every=1),
        "busy": Busy(hook, ranks, before + 5, folder / "busy"),
        "checkpoints": Checkpoints(every=10**6, keep=100),
    }
    trainer = partial(Trainer, accelerator="cpu", devices=2, strategy="ddp")
    endless = experiment(
        callbacks, max_steps=10**6, lr_decay="constant", trainer=trainer, validate_every=3
    )
    fit(endless, {}, run, newest_whole(run) if run.exists() else None)


def forked(*arguments):
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        train(*arguments)
    except SystemExit as end:
        status = end.code
    except RankLost:
        status = LOST
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def last(folder):
    return max((row["step"] for row in rows(folder / "run")), default=0)


def until(what, limit, told):
    end = time.monotonic() + limit
    while not what():
        assert time.monotonic() < end, told()
        time.sleep(0.01)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("forked")


DOING = {
    "steps": (None, ()),
    "a long step": ("on_before_backward", (0,)),
    "drawing": ("on_train_batch_end", (0,)),
    "validation": ("on_validation_batch_start", (0, 1)),
}
NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
SUBSETS = ((0,), (1,), (0, 1))
TRIALS = [
    *((number, hurt, "steps") for number in NUMBERS for hurt in SUBSETS),
    *((NUMBERS[k % 3], hurt, doing) for doing in list(DOING)[1:] for k, hurt in enumerate(SUBSETS)),
    (signal.SIGTERM, (1,), "a long step"),
    (signal.SIGINT, (1,), "drawing"),
]  # 20 of them


@pytest.mark.parametrize(("number", "hurt", "doing"), TRIALS, ids=str)
def test_a_signal_to_any_rank_saves_and_ends_all(folder, number, hurt, doing):
    def said():
        return "\n".join(path.read_text() for path in sorted(folder.glob("said_*.txt")))

    before = step_of(newest_whole(folder / "run")) if (folder / "run").exists() else 0
    (folder / "busy").unlink(missing_ok=True)
    port = find_free_network_port()
    pids = [forked(rank, port, folder, *DOING[doing], before) for rank in (0, 1)]
    try:
        busy = (folder / "busy").exists if DOING[doing][0] else lambda: last(folder) >= before + 5
        until(busy, 60, said)
        time.sleep(0.3)  # so that the other rank waits
        reached = last(folder)
        begun = time.monotonic()
        for rank in hurt:
            os.kill(pids[rank], number)
        statuses = {}

        def all_ended():
            for rank, pid in enumerate(pids):
                if rank in statuses:
                    continue
                found, status = os.waitpid(pid, os.WNOHANG)
                if found:
                    statuses[rank] = os.waitstatus_to_exitcode(status)
                    for other in {0, 1} - set(statuses):
                        os.killpg(pids[other], signal.SIGTERM)
            return len(statuses) == 2

        until(all_ended, SOON, said)
    finally:
        for pid in pids:
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
    took = time.monotonic() - begun
    expected = 130 if number == signal.SIGINT else 143
    assert any(statuses[rank] == expected for rank in hurt), (statuses, said())
    assert set(statuses.values()) <= {130, 143, LOST}, (statuses, said())
    saved = step_of(newest_whole(folder / "run"))
    assert reached <= saved == last(folder)
    assert said().count(f"step {saved} is saved; go on with the same command and resume=") == 1
    assert "Traceback" not in said()
    print(f"{number.name} to {hurt}, {doing}: {took:.1f} s, step {saved}, {statuses}")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return Run(tmp_path_factory.mktemp("run"), "trainer=ddp_cpu", *STEPPING)


@pytest.mark.parametrize("number", NUMBERS)
def test_so_does_a_signal_to_the_command(run, number):
    try:
        run.go_on("workers=1")
        reached = run.last()
        run.process.send_signal(number)
        took, status = run.end(SOON)
    finally:
        run.kill()
    assert status == (130 if number == signal.SIGINT else 143), run.said()
    assert reached <= run.saved() == run.last()
    assert run.said().count(f"step {run.saved()} is saved; go on with the same command and") == 1
    assert run.said().count("stopped\n") == 1
    assert "Traceback" not in run.said()
    print(f"{number.name}: {took:.1f} s")
