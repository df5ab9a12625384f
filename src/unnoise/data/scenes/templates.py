"""The scenes' art as what is looked for in pictures: drawings of subjects, and their tones.

Shapes: L drawings of P = 16·16 pixels, M moods of backgrounds.
"""

import functools
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from unnoise.data.scenes.backgrounds import BACKGROUNDS, MOODS, RAMPS, SHADE, SYMBOLS
from unnoise.data.scenes.drawing import TINTED
from unnoise.data.scenes.panoramas import FLOOR
from unnoise.data.scenes.plans import CAST
from unnoise.data.sprites.drawings import COLOURS, FACINGS, KINDS, PALETTE, STAMPS, TINTS

ART = 16  # pixels of a drawing's side
KNOWN = (*PALETTE["colour"].symbols, *"#_WwBbx")  # symbols of a single ramp, given the colour
LUMA = torch.tensor([0.299, 0.587, 0.114])  # of R, G and B


class Drawings(NamedTuple):
    """What subjects look like but for what they carry.

    Args:
        casts: (L,) of each.
        bodies: (L, P) numbers of symbols, 0 where nothing is.
        corners: (L, 2) the first row and column where something is.
        items: (L, 4, P) the symbols of an item where it is seen; all 0 for who carries none.
    """

    casts: list[int]
    bodies: Tensor
    corners: Tensor
    items: Tensor


@functools.cache
def drawings() -> Drawings:
    """Of the whole cast, by facing where it shows."""
    casts, bodies, items = [], [], []
    for cast, kind in enumerate(CAST):
        carries = any(item is not None for _, item in kind.shown)
        for facing in range(len(FACINGS) if kind.class_name == "side-facing" else 1):
            *carried, body = STAMPS[KINDS.index(kind), :, facing, 0]
            casts.append(cast)
            bodies.append(body)
            items.append([np.where(body == 0, each, 0) * carries for each in carried])
    whole = torch.tensor(np.array(bodies)).long()
    square = whole.view(-1, ART, ART) > 0
    corners = torch.stack([square.any(axis).int().argmax(1) for axis in (2, 1)], 1)
    return Drawings(casts, whole, corners, torch.tensor(np.array(items)).long())


@functools.cache
def tones() -> Tensor:
    """(8 backgrounds, 8 colours, symbols, 3) tones; of what has several ramps the first one's."""
    found = np.zeros((len(RAMPS), len(COLOURS), len(SYMBOLS), 3), np.float32)
    for number, ramps in enumerate(RAMPS):
        for symbol in SYMBOLS[1:]:
            ((group, ramp),) = [(g, r) for g, r in PALETTE.items() if symbol in r.symbols]
            at = ramp.symbols.index(symbol)
            for c, colour in enumerate(COLOURS):
                plain = TINTED[number][colour][len(TINTS) // 2] if group == "colour" else None
                tones = next(iter(ramps[group].values())) if plain is None else plain
                found[number, c, SYMBOLS.index(symbol)] = tones[at]
    return torch.from_numpy(found)


@functools.cache
def ramps() -> list[tuple[Tensor, Tensor]]:
    """Of each group of several ramps its symbols (s,), and tones (8 backgrounds, ramps, s, 3)."""
    found = []
    for group, ramp in PALETTE.items():
        if group != "colour" and len(ramp.tones) > 1:
            tones = np.array([list(ramps[group].values()) for ramps in RAMPS], np.float32)
            symbols = torch.tensor([SYMBOLS.index(symbol) for symbol in ramp.symbols])
            found.append((symbols, torch.from_numpy(tones)))
    return found


@functools.cache
def moods() -> tuple[Tensor, Tensor, Tensor]:
    """Of each mood the background (M,), tones behind the floor (M, 8, 3), and its (M, 10, 3)."""
    owners, tones = zip(
        *((k, mood) for k, each in enumerate(BACKGROUNDS) for mood in MOODS[each.name]), strict=True
    )
    every = torch.tensor(np.stack(tones)).float()
    floor = torch.cat([every[:, start + FLOOR : start + 13] for start in (0, SHADE)], 1)
    return torch.tensor(owners), every[:, :FLOOR], floor


@functools.cache
def kernels() -> tuple[Tensor, Tensor]:
    """(L, 1, 16, 16) each: of known pixels from the corner on, luma less its mean; and where."""
    found = drawings()
    luma = (tones().mean((0, 1)) @ LUMA)[found.bodies]
    known = torch.tensor([float(s in KNOWN) for s in SYMBOLS])[found.bodies]
    mean = (luma * known).sum(1, keepdim=True) / known.sum(1, keepdim=True)
    shape = -1, 1, ART, ART
    parts = ((luma - mean) * known).view(shape), known.view(shape)
    moved = [torch.zeros_like(part) for part in parts]
    for number, (row, column) in enumerate(found.corners.tolist()):
        for part, target in zip(parts, moved, strict=True):
            target[number, 0, : ART - row, : ART - column] = part[number, 0, row:, column:]
    return moved[0], moved[1]
