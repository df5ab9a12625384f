"""A check: something computed here, what it should be, and how far off it may be."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Result:
    """``got`` is to be within ``tolerance`` of ``expected``; one that is not a number never is."""

    got: float
    expected: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """|got − expected| ≤ tolerance."""
        return abs(self.got - self.expected) <= self.tolerance


Run = Callable[[torch.device], Result]


@dataclass(frozen=True)
class Check:
    """One line of the table.

    Args:
        group: what it belongs to, as "samplers".
        name: what is checked, in at most 48 characters.
        source: where the expected value comes from.
        run: computes on a device, from scratch.
    """

    group: str
    name: str
    source: str
    run: Run


def group(name: str, *facts: tuple[str, str, Run]) -> list[Check]:
    """The checks of a group; of each fact the name, the source and what computes it."""
    return [Check(name, *fact) for fact in facts]


@dataclass(frozen=True)
class Outcome:
    """What became of a check: its result, or the error that kept it from having one."""

    check: Check
    result: Result | None
    error: str | None
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether there is a result, and the right one."""
        return self.result is not None and self.result.passed


def outcomes(checks: Iterable[Check], device: torch.device) -> Iterator[Outcome]:
    """Run each check in turn; what a driver or library raises is a check that did not pass."""
    for check in checks:
        start = time.perf_counter()
        result, error = None, None
        try:
            with exact_arithmetic():
                result = check.run(device)
        except Exception as raised:
            error = f"{type(raised).__name__}: {raised}".splitlines()[0]
        yield Outcome(check, result, error, time.perf_counter() - start)


@contextmanager
def exact_arithmetic() -> Iterator[None]:
    """float32 is float32, not TF32, and convolutions are by deterministic algorithms."""
    products = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        ):
            yield
    finally:
        torch.set_float32_matmul_precision(products)


def with_float64(device: torch.device) -> torch.device:
    """The device, or the CPU in place of one without float64 (MPS)."""
    return torch.device("cpu") if device.type == "mps" else device
