"""Signals that end a run, and the step that is saved whatever ends it."""

import os
import select
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from unnoise.distributed import group as ranks
from unnoise.distributed.signals import REQUEUE, SIGNALS, heard, is_launchers, status_of
from unnoise.runs import manifest
from unnoise.runs.layout import RunDirectory
from unnoise.runs.manifest import Pruned
from unnoise.training.callbacks.checkpoints import NotSaved, save
from unnoise.training.callbacks.metrics import TrainingMetrics
from unnoise.training.callbacks.nan_guard import BadNumbers

PATIENCE = 2.0
"""Seconds that a step has to end after a signal; then it is given up."""
BLOCKED = 4.0
"""Seconds after which the main thread, which waits for other ranks, say, is not waited for."""
DEADLINE = 8.0
"""Seconds after which the process ends, whatever is still to be closed, but for a requeue."""

COUNTING = (TrainingMetrics, BadNumbers)


class Stop(Callback):
    """Ends a run on a signal to any rank, and saves the step at which it stands.

    Between two optimizer steps, and so also while pictures are drawn, a signal ends the process at
    once; a step that is under way is finished, if that does not take long. The status is 130
    after SIGINT (Ctrl-C), else 143; a second Ctrl-C ends the process without more ado. Whatever
    else ends the training, rank 0 saves as well, unless that happens inside an optimizer step.

    It comes ``among`` the other callbacks of the trainer after those that keep count, so that their
    part of a step is done when others draw, measure or save. Signals are heard inside ``hearing``.
    """

    def __init__(self) -> None:
        self._trainer: Trainer | None = None
        self._signal = 0
        self._taken: torch.cuda.Event | None = None  # on a GPU: the last step, when it is done
        self._in_step = False  # from a step's first micro-batch to its end
        self._updating = False  # while weights, their average and the optimizer's state differ
        self._leaving = self._told = False
        self._lock = threading.RLock()  # held by who saves; no update begins meanwhile

    def among(self, callbacks: Sequence[Callback]) -> list[Callback]:
        """All callbacks in their order, with this one in its place."""
        counting = (k for k, each in enumerate(callbacks, 1) if isinstance(each, COUNTING))
        place = max(counting, default=0)
        return [_Updated(self), *callbacks[:place], self, *callbacks[place:]]

    @contextmanager
    def hearing(self) -> Iterator[None]:
        """Hear signals, if this is the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        ear, mouth = os.pipe()
        os.set_blocking(mouth, False)
        self._requeueing = [n for n in REQUEUE if is_launchers(signal.getsignal(n))]
        with heard(self._on_signal, hurry=lambda: None):
            alarm = signal.signal(signal.SIGALRM, self._on_alarm)
            wakeup = signal.set_wakeup_fd(mouth, warn_on_full_buffer=False)
            threading.Thread(target=self._listen, args=(ear,), daemon=True).start()
            try:
                yield
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
                signal.set_wakeup_fd(wakeup)
                signal.signal(signal.SIGALRM, alarm)
                os.close(mouth)  # and the thread ends

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Keep Lightning from hearing signals: its handler waits for all ranks, and each batch."""
        signals: Any = trainer._signal_connector
        loop: Any = trainer.fit_loop.epoch_loop
        signals.register_signal_handlers = loop._broadcast_sigterm_tensor = lambda: None

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """From now on there is something to save."""
        self._in_step = self._updating = self._leaving = False
        self._trainer, self._taken = trainer, None

    def on_train_batch_start(
        self, trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """End the run if a signal came to one of the ranks during the last step."""
        if self._in_step:
            return
        interrupted, told = ranks.sum_over_ranks([self._signal == signal.SIGINT, self._signal != 0])
        if told:
            self._signal = self._signal or (signal.SIGINT if interrupted else signal.SIGTERM)
            self._leaving = True
            self._save(signal.Signals(self._signal).name)
            ranks.sum_over_ranks([0])  # wait until rank 0 has saved: one that ends has all ended
            raise SystemExit(status_of(signal.SIGINT if interrupted else signal.SIGTERM))
        self._in_step = True

    def on_before_optimizer_step(
        self, trainer: Trainer, module: LightningModule, optimizer: Any
    ) -> None:
        """No step is whole until this one is; gradients of other ranks have come by then."""
        if trainer.world_size > 1 and module.device.type == "cuda":
            torch.cuda.current_stream().synchronize()
        with self._lock:
            self._updating = True

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """A step has been taken, unless micro-batches of it are still to come."""
        if module.device.type == "cuda":
            self._taken = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._taken.record()
        self._in_step = (batch_idx + 1) % trainer.accumulate_grad_batches != 0

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        """End the run if a signal came during the last step."""
        if self._signal:
            raise SystemExit(status_of(self._signal))

    def on_exception(
        self, trainer: Trainer, module: LightningModule, exception: BaseException
    ) -> None:
        """Save what there is, whatever ends the run; bad numbers and a search do not want it."""
        self._leaving = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        fit_to_save = isinstance(exception, Exception | SystemExit)
        if fit_to_save and not isinstance(exception, FloatingPointError | NotSaved | Pruned):
            lost = ranks.is_lost_rank(exception)
            why = "another rank is lost" if lost else type(exception).__name__
            self._save(signal.Signals(self._signal).name if self._signal else why)

    def _save(self, why: str) -> None:
        """Write a checkpoint, without the other ranks, and say so."""
        with self._lock:
            trainer = self._trainer
            if trainer is None or not trainer.is_global_zero or self._updating or self._told:
                return
            run, step = Path(trainer.default_root_dir), trainer.global_step
            try:
                if not RunDirectory(run).checkpoint(step).exists():
                    with self._apart(trainer):
                        save(trainer, together=False)
                shown = run.relative_to(Path.cwd()) if run.is_relative_to(Path.cwd()) else run
                also = "" if manifest.is_job(run) else f" and resume={shown}"
                told = f"step {step} is saved; go on with the same command{also}"
            except (FloatingPointError, NotSaved) as error:
                told = str(error)
            except Exception as error:  # what ended the training is what is to be raised
                told = f"step {step} could not be saved: {error!r}"
            self._told = True
            with suppress(OSError):  # the terminal may be gone, too
                print(f"\n{why}: {told}", flush=True)

    def _apart(self, trainer: Trainer) -> AbstractContextManager[object]:
        """On a GPU, wait for the last step alone: what came later may wait for a lost rank."""
        if self._taken is None:
            return nullcontext()
        device = trainer.strategy.root_device
        stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        stream.wait_event(self._taken)
        return torch.cuda.stream(stream)

    def _on_signal(self, number: int) -> None:
        self._signal = number
        if self._in_step:
            signal.setitimer(signal.ITIMER_REAL, PATIENCE, 0.1)
        elif not self._leaving:
            raise SystemExit(status_of(number))

    def _on_alarm(self, number: int, frame: FrameType | None) -> None:
        if not self._updating and not self._leaving:
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise SystemExit(status_of(self._signal))

    def _listen(self, ear: int) -> None:
        """A thread that hears signals when the main thread cannot, as it waits for another rank.

        It also knows when the supervisor that started this rank is gone.
        """
        parent, supervised = os.getppid(), "TORCHELASTIC_RUN_ID" in os.environ
        heard, since = 0, 0.0
        while True:
            if select.select([ear], [], [], 0.25)[0]:
                numbers = os.read(ear, 64)
                if not numbers:
                    os.close(ear)
                    return
                if not heard:
                    heard = next((n for n in numbers if n in SIGNALS), 0)
                    since = time.monotonic()
            if supervised and os.getppid() != parent:
                if heard:  # a second Ctrl-C
                    self._give_up(heard, saving=False)
                parent = os.getppid()
                os.kill(os.getpid(), signal.SIGTERM)
            late = time.monotonic() - since if heard else 0.0
            busy = self._leaving or self._updating
            if heard in self._requeueing:  # a launcher is still to queue the job again
                continue
            if late > DEADLINE or (late > BLOCKED and not busy):
                self._give_up(heard, saving=True)

    def _give_up(self, number: int, saving: bool) -> None:
        with self._lock:  # what is just being saved is saved
            if saving:
                self._save(signal.Signals(number).name)
            os._exit(status_of(number))


class _Updated(Callback):
    """Says that an optimizer step is whole, before others count it and wait for other ranks."""

    def __init__(self, stop: Stop) -> None:
        self._stop = stop

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """From here on the step can be saved."""
        self._stop._updating = False
