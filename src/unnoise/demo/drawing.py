"""Drawing in a thread of its own, watched while it goes on."""

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from unnoise.api import Model, Pictures
from unnoise.diffusion.levels import NoiseLevel
from unnoise.diffusion.samplers import Watch

PAUSE = 0.15  # seconds between two pictures of the way


@dataclass(frozen=True)
class Job:
    """What is to be drawn of one run, checked.

    Args:
        how: the sampler in words.
        steps: how often the watch is called.
        command: of ``unnoise-sample``, that draws the same; None where it takes pictures.
        draw: does it.
    """

    how: str
    steps: int
    command: str | None
    draw: Callable[[Watch], Pictures]


class Prepare(Protocol):
    """Checks the keys of ``unnoise-sample`` for one run.

    Raises:
        ConfigError, ValueError, FileNotFoundError: they do not fit; says why.
    """

    def __call__(self, model: Model, keys: Mapping[str, Any]) -> Job:
        """What is to be done."""
        ...


class Stopped(Exception):
    """The drawing is not wanted any more."""


@dataclass(frozen=True)
class Frame:
    """The pictures (N, C, H, W) uint8 as they are after ``step`` steps."""

    step: int
    pixels: Tensor


def drawn(job: Job, model: Model, stop: threading.Event) -> Iterator[Frame | Pictures]:
    """Some frames, x_t/√(α² + σ²) decoded, and at the end the pictures.

    Raises:
        Stopped: ``stop`` was set, which is noticed after a step.
        Exception: whatever the drawing raises.
    """
    found: queue.Queue[Frame | Pictures | Exception] = queue.Queue()
    step, shown, unseen = 0, 0.0, threading.Event()

    def watch(x: Tensor, level: NoiseLevel) -> None:
        nonlocal step, shown
        step += 1
        if stop.is_set() or unseen.is_set():
            raise Stopped
        if time.monotonic() - shown >= PAUSE and found.empty():
            scaled = x / (level.alpha**2 + level.sigma**2).sqrt().to(x)
            found.put(Frame(step, model.model.codec.decode(scaled).cpu()))
            shown = time.monotonic()

    def work() -> None:
        try:
            found.put(job.draw(watch))
        except Exception as error:  # is raised where it is waited for
            found.put(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while not isinstance(item := found.get(), Pictures):
            if isinstance(item, Exception):
                raise item
            yield item
        yield item
    finally:
        unseen.set()
        thread.join()
