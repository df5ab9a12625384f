"""Averages of a run's weights over a part of it that is chosen after training.

A power-function average at update t weighs update τ by p(τ) = (γ + 1)·τ^γ/t^(γ+1), what came first
hardly and what came last most (Karras et al. 2024, "Analyzing and improving the training dynamics
of diffusion models", §3.1 and appendix C). Its relative ``length`` is the standard deviation of p
over t, so that it means the same whatever t is. From two such averages, kept at several updates,
that of any other length is put together: the combination whose p is closest.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from unnoise.models.ema import EMA, Model
from unnoise.runs.checkpoints import checkpoints, read_checkpoint
from unnoise.runs.layout import RunDirectory

LONGEST = 0.288  # just below 1/√12, of γ = 0: every update alike
FURTHEST = 0.1
"""How far, relative to its norm, a profile may be from the one that is wanted."""
Length = Annotated[float, Field(gt=0, lt=LONGEST)]
Averaged = bool | Length
"""Which weights: the run's average, the last ones (false), or the average of a relative length."""
PREFIX = "averages."


def gamma_of(length: Length) -> float:
    """The exponent γ > 0 of a relative length (γ + 1)^½·(γ + 2)^−1·(γ + 3)^−½."""
    roots = np.roots([1, 7, 16 - length**-2, 12 - length**-2])
    return float(roots.real.max())


class NoAverage(ValueError):
    """A run does not hold what an average of some length is made of."""


class PowerAverage(EMA[Model]):
    """The average of a relative length; update t = 1, 2, … has the decay (1 − 1/t)^(γ + 1)."""

    def __init__(self, model: Model, length: Length, shared: Sequence[nn.Module] = ()) -> None:
        super().__init__(model, 1.0, shared)
        self.gamma = gamma_of(length)
        self.register_buffer("length", torch.tensor(length, dtype=torch.float64))

    def decay_at(self, t: int) -> float:
        """Of update t + 1; that of the first is 0."""
        return float((1 - 1 / (t + 1)) ** (self.gamma + 1))


class Profile(NamedTuple):
    """The average of a relative length, as it was after ``updates``."""

    updates: int
    length: float


def overlap(a: Profile, b: Profile) -> float:
    """∫ p_a·p_b dτ, over updates from 0 to the earlier one of both."""
    (t, p), (s, q) = ((each.updates, gamma_of(each.length)) for each in (a, b))
    first = min(t, s)
    found: float = (p + 1) * (q + 1) / (p + q + 1) * (first / t) ** p * (first / s) ** q / max(t, s)
    return found


def combination(kept: Sequence[Profile], wanted: Profile) -> tuple[list[float], float]:
    """Shares of the ``kept`` averages, of sum 1, and how far from ``wanted`` the whole is.

    The shares make ‖Σ x_i·p_i − p‖ least; the distance is this over ‖p‖.
    """
    A = np.array([[overlap(a, b) for b in kept] for a in kept])
    b, norm = np.array([overlap(each, wanted) for each in kept]), overlap(wanted, wanted)
    shares = np.linalg.lstsq(A, b, rcond=1e-13)[0]
    shares /= shares.sum()
    off = max(0.0, float(shares @ A @ shares - 2 * shares @ b + norm))
    return shares.tolist(), float((off / norm) ** 0.5)


def stored(content: dict[str, Any]) -> dict[Profile, dict[str, Tensor]]:
    """The power-function averages in a checkpoint: the state of the model of each."""
    state, found = content["state_dict"], {}
    numbers = sorted({key.split(".")[1] for key in state if key.startswith(PREFIX)}, key=int)
    for start in (f"{PREFIX}{number}." for number in numbers):
        profile = Profile(int(state[f"{start}updates"]), float(state[f"{start}length"]))
        model = f"{start}model."
        found[profile] = {k.removeprefix(model): v for k, v in state.items() if k.startswith(model)}
    return found


def parts(path: Path, length: Length) -> dict[Path, dict[Profile, float]]:
    """What the average of a length is made of at a checkpoint: shares, file by file, of sum 1.

    These are its own averages, and those of the earlier checkpoints beside it.

    Raises:
        NoAverage: the run kept no such averages, or too few of them.
    """
    last = _profiles(path)
    if not last:
        raise NoAverage(
            f"averaged: the run kept no averages to make one of length {length:g} of: train with "
            "ema_lengths=[0.05,0.1]"
        )
    saved = checkpoints(RunDirectory.of(path).path)
    earlier = saved[: saved.index(path)] if path in saved else []
    kept = [(file, profile) for file in (*earlier, path) for profile in _profiles(file)]
    wanted = Profile(max(profile.updates for profile in last), length)
    shares, off = combination([profile for _, profile in kept], wanted)
    if off > FURTHEST:
        raise NoAverage(
            f"averaged: the {len(kept)} averages that the run kept make none of length {length:g} "
            f"(its weights would be {off:.0%} off): keep more checkpoints "
            "(callbacks.checkpoints.keep_every), or choose a length nearer to ema_lengths"
        )
    found: dict[Path, dict[Profile, float]] = {}
    for (file, profile), share in zip(kept, shares, strict=True):
        found.setdefault(file, {})[profile] = share
    return found


def _profiles(path: Path) -> tuple[Profile, ...]:
    """Of the averages in a checkpoint that are of an update or more."""
    file = path.stat()
    return _read_profiles(path, file.st_mtime_ns, file.st_size)


@functools.cache
def _read_profiles(path: Path, changed: int, size: int) -> tuple[Profile, ...]:
    return tuple(each for each in stored(read_checkpoint(path)) if each.updates > 0)


def reconstructed(path: Path, content: dict[str, Any], length: Length) -> dict[str, Tensor]:
    """The state of a model whose weights are the average of a length, at a checkpoint.

    Its ``parts`` are combined in float64, read file by file. Whatever is the same in all of them
    stays exactly the same.

    Raises:
        NoAverage: the run kept no such averages, or too few of them.
    """
    shares = parts(path, length)
    state = stored(content)[next(iter(shares[path]))]
    whole = {k: torch.zeros_like(v, dtype=torch.float64) for k, v in state.items() if _is_sum(v)}
    for file, of in shares.items():
        averages = stored(read_checkpoint(file))
        for profile, share in of.items():
            for key, total in whole.items():
                total.add_(averages[profile][key].double(), alpha=share)
    return state | {key: total.to(state[key].dtype) for key, total in whole.items()}


def _is_sum(value: Tensor) -> bool:
    return value.is_floating_point() and bool(value.isfinite().all())
