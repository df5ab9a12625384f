"""Signals that end a run, and the checkpoint that is saved when anything ends it."""

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
from unnoise.runs.layout import RunDirectory, shown
from unnoise.runs.manifest import Pruned
from unnoise.training.callbacks.checkpoints import NotSaved, save
from unnoise.training.callbacks.metrics import TrainingMetrics
from unnoise.training.callbacks.nan_guard import BadNumbers

PATIENCE = 2.0
"""Seconds that a step may take to finish after a signal; then it is dropped."""
BLOCKED = 4.0
"""Seconds until the process ends although its main thread is blocked, as by other ranks."""
DEADLINE = 8.0
"""Seconds until the process ends whatever is still open, except for a requeue."""

COUNTING = (TrainingMetrics, BadNumbers)


class Stop(Callback):
    """Ends a run on a signal to any rank, or before its end ``until`` a step, and saves that step.

    Between optimizer steps, for example while pictures are drawn, a signal ends the process at
    once; a step in progress is finished first, if that does not take long. The status is 130 after
    SIGINT (Ctrl-C), else 143; a second Ctrl-C ends the process at once without saving. Rank 0 also
    saves when anything else ends training, except inside an optimizer step. After ``until`` the
    status is 0; a run that is there already ends at once.

    ``among`` places it after the callbacks that count steps, so that these have counted a step when
    others draw, measure or save. Signals are handled inside ``hearing``.
    """

    def __init__(self, until: int | None = None) -> None:
        self._until = until
        self._trainer: Trainer | None = None
        self._signal = 0
        self._taken: torch.cuda.Event | None = None  # on a GPU: marks the end of the last step
        self._in_step = False  # from the first micro-batch of a step to its end
        self._updating = False  # while weights, EMA and optimizer are not of one step
        self._leaving = self._saved = False
        self._lock = threading.RLock()  # held while saving; no update begins meanwhile

    def among(self, callbacks: Sequence[Callback]) -> list[Callback]:
        """All callbacks in their order, with this one inserted."""
        counting = (k for k, each in enumerate(callbacks, 1) if isinstance(each, COUNTING))
        place = max(counting, default=0)
        return [_Updated(self), *callbacks[:place], self, *callbacks[place:]]

    @contextmanager
    def hearing(self) -> Iterator[None]:
        """Handle signals, if this is the main thread."""
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
        """Disable Lightning's signal handler, which waits for all ranks at each batch."""
        signals: Any = trainer._signal_connector
        loop: Any = trainer.fit_loop.epoch_loop
        signals.register_signal_handlers = loop._broadcast_sigterm_tensor = lambda: None

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """From now on there is a state to save."""
        self._in_step = self._updating = self._leaving = False
        self._trainer, self._taken = trainer, None

    def on_train_batch_start(self, trainer: Trainer, module: Any, *_: Any) -> None:
        """End the run if any rank received a signal during the last step."""
        if self._in_step:
            return
        here = self._signal == signal.SIGINT, self._signal != 0
        interrupted, signalled = ranks.sum_over_ranks(here)
        if not signalled and self._until is not None and trainer.global_step >= self._until:
            self._leaving = True
            self._save("until")
            ranks.sum_over_ranks([0])
            raise SystemExit(0)
        if signalled:
            ended_by = signal.SIGINT if interrupted else signal.SIGTERM
            self._signal, self._leaving = self._signal or ended_by, True
            self._save(signal.Signals(self._signal).name)
            ranks.sum_over_ranks([0])  # wait for rank 0: one rank that ends stops the others
            raise SystemExit(status_of(ended_by))
        self._in_step = True

    def on_before_optimizer_step(self, trainer: Trainer, module: Any, *_: Any) -> None:
        """From here until the step is complete nothing can be saved."""
        if trainer.world_size > 1 and module.device.type == "cuda":
            torch.cuda.current_stream().synchronize()
        with self._lock:
            self._updating = True

    def on_train_batch_end(self, trainer: Trainer, module: Any, *_: Any) -> None:
        """Note the end of a step, if this was its last micro-batch."""
        if module.device.type == "cuda":
            self._taken = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._taken.record()
        self._in_step = not module.stepped

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        """End the run if a signal came during the last step."""
        if self._signal:
            raise SystemExit(status_of(self._signal))

    def on_exception(self, trainer: Trainer, module: Any, exception: BaseException) -> None:
        """Save, unless bad numbers or a search ended the run."""
        self._leaving = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        fit_to_save = isinstance(exception, Exception | SystemExit)
        if fit_to_save and not isinstance(exception, FloatingPointError | NotSaved | Pruned):
            lost = ranks.is_lost_rank(exception)
            why = "another rank is lost" if lost else type(exception).__name__
            self._save(signal.Signals(self._signal).name if self._signal else why)

    def _save(self, why: str) -> None:
        """Write a checkpoint without the other ranks, and print that."""
        with self._lock:
            trainer = self._trainer
            if trainer is None or not trainer.is_global_zero or self._updating or self._saved:
                return
            run, step = Path(trainer.default_root_dir), trainer.global_step
            try:
                if not RunDirectory(run).checkpoint(step).exists():
                    with self._apart(trainer):
                        save(trainer, together=False)
                also = "" if manifest.read(run).get("sweep") else f" and resume={shown(run)}"
                outcome = f"step {step} is saved; go on with the same command{also}"
            except (FloatingPointError, NotSaved) as error:
                outcome = str(error)
            except Exception as error:  # the error that ended training is the one to raise
                outcome = f"step {step} could not be saved: {error!r}"
            self._saved = True
            with suppress(OSError):  # the terminal may be gone, too
                print(f"\n{why}: {outcome}", flush=True)

    def _apart(self, trainer: Trainer) -> AbstractContextManager[object]:
        """A stream that waits for the last step only: later work may wait for a lost rank."""
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
        """Run in a thread: handle signals while the main thread is blocked by another rank.

        Also ends the run when the supervisor that started this rank is gone.
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
            if heard in self._requeueing:  # a launcher will requeue the job
                continue
            if late > DEADLINE or (late > BLOCKED and not busy):
                self._give_up(heard, saving=True)

    def _give_up(self, number: int, saving: bool) -> None:
        with self._lock:  # wait for a save in progress
            if saving:
                self._save(signal.Signals(number).name)
            os._exit(status_of(number))


class _Updated(Callback):
    """Marks an optimizer step as complete, before others count it and wait for other ranks."""

    def __init__(self, stop: Stop) -> None:
        self._stop = stop

    def on_train_batch_end(self, *_: Any) -> None:
        """From here on this step can be saved."""
        self._stop._updating = False
