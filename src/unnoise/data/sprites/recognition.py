"""Which sprite a picture shows: the nearest of all that can be drawn.

A sprite is a stamp (a kind with an item, facing and shift) whose symbols take the tones of one ramp
of each palette group. Groups share no symbol, so for each stamp the best ramp of each group can be
chosen by itself, and the nearest of all sprites is found exactly:

    |x − sprite|² = |x|² + Σ_groups min_ramp Σ_s n_s·|t_s|² − 2·t_s·Σ_{p of s} x_p

with n_s the pixels p of symbol s, and t_s its tone.

Shapes: N pictures, K stamps, S symbols of a group, R ramps of it.
"""

import functools
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from unnoise.data.sprites.drawings import (
    COLOURS,
    FACINGS,
    ITEMS,
    KINDS,
    PALETTE,
    SHIFTS,
    STAMPS,
    TINTS,
)

CLOSE = 50.0
"""Levels of 255, root mean square: how far a picture may be from a sprite that it shows."""
SOME = 50  # pictures at a time


class Group(NamedTuple):
    """A palette group on all stamps."""

    inside: Tensor  # (S·K, 256): 1 where the pixel has the symbol
    tones: Tensor  # (R, S, 3)


class Nearest(NamedTuple):
    """The sprites nearest to pictures: kind, colour and item by number, each (N,), and how far.

    An item's number is that in ITEMS, or one more where there is none; ``distance`` is the root
    mean square over pixels and channels, in levels of 255.
    """

    kind: Tensor
    colour: Tensor
    item: Tensor
    distance: Tensor


@functools.cache
def _stamps() -> tuple[Tensor, Tensor]:
    """(kind, item) of each stamp that occurs, (K, 2), and its symbols, (K, 256)."""
    none, about, symbols = len(ITEMS), [], []
    for number, kind in enumerate(KINDS):
        pairs = (*kind.shown, *kind.held_out)
        items = sorted({none if item is None else ITEMS.index(item) for _, item in pairs})
        facings = len(FACINGS) if kind.class_name == "side-facing" else 1
        for item in items:
            for facing in range(facings):
                for shift in range(SHIFTS):
                    about.append((number, item))
                    symbols.append(STAMPS[number, item, facing, shift])
    return torch.tensor(about), torch.from_numpy(np.stack(symbols).astype(np.int64))


@functools.cache
def _groups() -> dict[str, Group]:
    _, symbols = _stamps()
    groups, first = {}, 0
    for name, ramp in PALETTE.items():
        tones = np.stack(list(ramp.tones.values())).astype(np.float64)
        if name == "colour":
            tinted = tones[:, None] * TINTS[None, :, None]
            tones = tinted.round().clip(0, 255).reshape(-1, *tones.shape[1:])
        here = range(first, first + len(ramp.symbols))
        inside = torch.stack([symbols == symbol for symbol in here])
        groups[name] = Group(inside.flatten(0, 1).float(), torch.from_numpy(tones).float())
        first = here.stop
    return groups


def nearest(pictures: Tensor) -> Nearest:
    """The nearest sprites to pictures uint8 (N, 3, 16, 16)."""
    parts = [_nearest(some) for some in torch.split(pictures, SOME)]
    return Nearest(*(torch.cat(each) for each in zip(*parts, strict=True)))


def _nearest(pictures: Tensor) -> Nearest:
    about, symbols = _stamps()
    x = pictures.flatten(2).float()  # (N, 3, 256)
    n, k = len(x), len(symbols)
    total = x.square().sum((1, 2))[:, None].expand(n, k)
    colours = torch.zeros(n, k, dtype=torch.int64)
    for name, group in _groups().items():
        s = group.tones.shape[1]
        sums = (x.flatten(0, 1) @ group.inside.T).view(n, 3, s, k)
        counts = group.inside.sum(1).view(s, k)
        squares = group.tones.square().sum(2) @ counts  # (R, K)
        crossed = torch.einsum("ncsk,rsc->nkr", sums, group.tones)
        best = (squares.T - 2 * crossed).min(2)
        total = total + best.values
        if name == "colour":
            colours = best.indices // len(TINTS)
    least = total.min(1)
    rows = least.indices
    kind, item = about[rows].T
    colour = colours[torch.arange(n), rows]
    return Nearest(kind, colour, item, (least.values.clamp(min=0) / x[0].numel()).sqrt())


@functools.cache
def _numbers() -> Tensor:
    """The number of each combination of kind, colour and item; −1 where there is none.

    Those that training shows come first, kind by kind, then those that are held out.
    """
    numbers = torch.full((len(KINDS), len(COLOURS), len(ITEMS) + 1), -1)
    shown = [(k, *pair) for k, kind in enumerate(KINDS) for pair in kind.shown]
    held = [(k, *pair) for k, kind in enumerate(KINDS) for pair in kind.held_out]
    for number, (k, colour, item) in enumerate([*shown, *held]):
        numbers[k, COLOURS.index(colour), (*ITEMS, None).index(item)] = number
    return numbers


def combinations(pictures: Tensor) -> Tensor:
    """The number of the combination of kind, colour and item that each picture shows, (N,) int64.

    Those of training have the first numbers, as ``Sprites.lesson_names``; those held out from it
    the next. −1 where a picture is further than ``CLOSE`` from every sprite.
    """
    found = nearest(pictures)
    numbers = _numbers()[found.kind, found.colour, found.item]
    return torch.where(found.distance <= CLOSE, numbers, -1)
