"""What a scene shows, recognised by its art: the background, and which subjects stand where.

Nothing is learned. A pixel matches a tone by exp(−d²/2τ²), d the distance of their colours. The
pixels of a subject have known tones: those of its colour, and of skin, hair and the like any of the
ramps. So the evidence for a subject at a place is Σ (match − ``CHANCE``) over its pixels. Subjects
are found one after the other, the most evident first, and a pixel that one of them covers counts
for no other: who stands behind is recognised by what is seen of him.

Shapes: B pictures of S × S pixels, C channels of matches, L drawings of P = 16·16 pixels, K
candidates: a drawing at a place in a size.
"""

import functools
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from unnoise.data.scenes.backgrounds import BACKGROUNDS, MOODS, RAMPS, SHADE, SYMBOLS
from unnoise.data.scenes.drawing import TINTED
from unnoise.data.scenes.layout import scales
from unnoise.data.scenes.panoramas import FLOOR, HORIZON, SIDE
from unnoise.data.scenes.plans import CAST
from unnoise.data.sprites.source import COLOURS, FACINGS, ITEMS, KINDS, PALETTE, STAMPS, TINTS

TAU = 40.0  # τ of subjects, in levels of 255
NEAR = 16.0  # of backgrounds, whose tones are more alike
CHANCE = 0.6  # a match that is evidence neither for a subject nor against it
LEAST = 0.8  # mean match of what is seen of a subject
VISIBLE = 0.4  # of a subject's pixels, at least
CANDIDATES = 40  # a size
MOST = 8  # subjects
ART = 16  # pixels of a drawing's side
SMALLEST = 10  # of the side of what is drawn
TONES = PALETTE["colour"].symbols
PLAIN = [s for s in SYMBOLS if s not in TONES and s != "."]
COLOURED = len(COLOURS) * len(TONES)  # channels of colours, before those of PLAIN and of nothing
ROUGH = (*TONES, "#", "_", "Ss")  # symbols by which candidates are found
ROWS, COLUMNS = torch.arange(ART**2) // ART, torch.arange(ART**2) % ART


class Subject(NamedTuple):
    """A subject in a picture: its box in pixels, and how well what is seen of it matches, 0 … 1."""

    kind: str
    colour: str
    item: str | None
    left: int
    top: int
    width: int
    height: int
    match: float


class Recognised(NamedTuple):
    """What a picture shows, the most evident subject first."""

    background: str
    subjects: tuple[Subject, ...]


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


class Candidates(NamedTuple):
    """K drawings at places in the pictures.

    Args:
        drawing: (B, K) its number.
        top: (B, K) the row of its first pixel, which may lie outside, as may ``left``'s column.
        scale: (B, K) picture pixels per pixel of the drawing.
        solid: (B, K, P) where something is drawn.
        places: (B, K, P) the pixel of the picture, 0 … S·S − 1, or 0 where nothing is drawn.
        matches: (B, K, 8, P) in each colour; 0 where nothing is drawn, or outside.
    """

    drawing: Tensor
    top: Tensor
    left: Tensor
    scale: Tensor
    solid: Tensor
    places: Tensor
    matches: Tensor


@functools.cache
def drawings() -> Drawings:
    """Of the whole cast, by facing where that can be told."""
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
def _tones() -> Tensor:
    """(8 backgrounds, 32 + 5·22, 3): those of the colours, and up to five of each other symbol."""
    found = []
    for number, ramps in enumerate(RAMPS):
        tones = [TINTED[number][colour][len(TINTS) // 2] for colour in COLOURS]
        for symbol in PLAIN:
            ((group, ramp),) = [(g, r) for g, r in PALETTE.items() if symbol in r.symbols]
            column = [each[ramp.symbols.index(symbol)] for each in ramps[group].values()]
            tones.append(np.stack([column[k % len(column)] for k in range(5)]))
        found.append(np.concatenate(tones))
    return torch.tensor(np.stack(found)).float()


@functools.cache
def _moods() -> tuple[Tensor, Tensor, Tensor]:
    """Of each mood the background (M,), tones behind the floor (M, 8, 3), and its (M, 10, 3)."""
    owners, tones = zip(
        *((k, mood) for k, each in enumerate(BACKGROUNDS) for mood in MOODS[each.name]), strict=True
    )
    every = torch.tensor(np.stack(tones)).float()
    floor = torch.cat([every[:, start + FLOOR : start + 13] for start in (0, SHADE)], 1)
    return torch.tensor(owners), every[:, :FLOOR], floor


def squared_distances(pixels: Tensor, tones: Tensor) -> Tensor:
    """|t − p|² of pixels (B, 3, N) and tones (B or 1, R, 3): (B, R, N)."""
    left = torch.cat(
        (-2 * tones, tones.square().sum(2, keepdim=True), torch.ones_like(tones[..., :1])), 2
    )
    right = torch.cat(
        (pixels, torch.ones_like(pixels[:, :1]), pixels.square().sum(1, keepdim=True)), 1
    )
    return left @ right


def backgrounds(pictures: Tensor) -> Tensor:
    """The number of the likeliest background of pictures (B, 3, S, S) as floats 0 … 255: (B,)."""
    unit = pictures.shape[2] // SIDE
    owners, behind, floor = _moods()
    total = torch.zeros(len(pictures), len(owners))
    upper, lower = pictures[:, :, : HORIZON[0] * unit], pictures[:, :, (HORIZON[1] + 1) * unit :]
    for part, tones in ((upper, behind), (lower, floor)):
        pixels = part[:, :, :: 2 * unit, :: 2 * unit].flatten(2)
        far = squared_distances(pixels, tones.flatten(0, 1)[None])
        total += (
            (far.reshape(len(far), *tones.shape[:2], -1).amin(2) * (-0.5 / NEAR**2)).exp().sum(2)
        )
    return owners[total.argmax(1)]


def _matches(pictures: Tensor, background: Tensor) -> Tensor:
    """(B, C, S, S): tone k of each colour, the other symbols, and nothing, which matches never."""
    far = squared_distances(pictures.flatten(2), _tones()[background])
    others = far[:, COLOURED:].reshape(len(far), len(PLAIN), 5, -1).amin(2)
    matches = torch.cat((far[:, :COLOURED], others), 1).mul_(-0.5 / TAU**2).exp_()
    return F.pad(matches, (0, 0, 0, 1)).reshape(len(far), -1, *pictures.shape[2:])


def _means(maps: Tensor, scale: int) -> Tensor:
    """Over the square of ``scale`` pixels whose first is each pixel; beyond the edge is 0."""
    if scale == 1:
        return maps
    S = maps.shape[2]
    padded = F.pad(maps, (0, scale - 1) * 2)
    shifts = range(scale)
    rows = torch.stack([padded[:, :, k : k + S] for k in shifts]).mean(0)
    return torch.stack([rows[..., k : k + S] for k in shifts]).mean(0)


@functools.cache
def _rough() -> Tensor:
    """(L, 7, 16, 16): of what is drawn, from its corner on, where the rough symbols are; sums 1."""
    found = drawings()
    kernels = torch.zeros(len(found.casts), len(ROUGH), ART, ART)
    for number, symbols in enumerate(ROUGH):
        here = torch.isin(found.bodies, torch.tensor([SYMBOLS.index(s) for s in symbols]))
        for kernel, drawn, (row, column) in zip(
            kernels, here.view(-1, ART, ART), found.corners.tolist(), strict=True
        ):
            kernel[number, : ART - row, : ART - column] = drawn[row:, column:]
    return kernels / kernels.sum((1, 2, 3), keepdim=True)


@functools.cache
def _channels() -> Tensor:
    """(8, symbols) the channel of each symbol in each colour."""
    nothing = COLOURED + len(PLAIN)
    return torch.tensor([
        [
            c * len(TONES) + TONES.index(s) if s in TONES
            else COLOURED + PLAIN.index(s) if s in PLAIN else nothing
            for s in SYMBOLS
        ]
        for c in range(len(COLOURS))
    ])  # fmt: skip


def _candidates(means: Tensor, scale: int) -> Candidates:
    """Where drawings match best by their rough symbols, in whatever colour each pixel is."""
    B, S = len(means), means.shape[2]
    tones = means[:, :COLOURED].reshape(B, len(COLOURS), -1, S, S).amax(1)
    plain = [
        means[:, [COLOURED + PLAIN.index(s) for s in each]].amax(1, keepdim=True)
        for each in ROUGH[len(TONES) :]
    ]
    room = (ART - SMALLEST) * scale
    padded = F.pad(torch.cat((tones, *plain), 1), (0, room) * 2)
    score = F.conv2d(padded.contiguous(memory_format=torch.channels_last), _rough(), dilation=scale)
    highest = F.max_pool2d(score, 3, 1, 1)
    score = torch.where(score == highest, score, 0).contiguous()
    N = score.shape[2]
    number = score.flatten(1).topk(CANDIDATES, 1).indices
    found, drawing = drawings(), number // N**2
    top, left = number % N**2 // N, number % N
    top = top - found.corners[drawing, 0] * scale
    left = left - found.corners[drawing, 1] * scale
    y, x = top[..., None] + ROWS * scale, left[..., None] + COLUMNS * scale
    symbols = found.bodies[drawing]
    inside = (y >= 0) & (x >= 0) & (y <= S - scale) & (x <= S - scale)
    places = torch.where(inside & (symbols > 0), y * S + x, 0)
    symbols = torch.where(inside, symbols, 0)
    channels = _channels()[:, symbols].permute(1, 2, 0, 3)  # (B, K, 8, P)
    index = channels * S**2 + places[:, :, None]
    matches = means.reshape(B, -1).gather(1, index.flatten(1)).view(index.shape)
    solid = found.bodies[drawing] > 0
    return Candidates(drawing, top, left, torch.full_like(top, scale), solid, places, matches)


@torch.inference_mode()
def recognise(pictures: Tensor) -> list[Recognised]:
    """What each of the pictures (B, 3, S, S) uint8 shows, S 64 or 128."""
    x = pictures.float()
    background = backgrounds(x)
    maps = _matches(x, background)
    sizes = scales(x.shape[2]).values()
    parts = [_candidates(_means(maps, scale), scale) for scale in sizes]
    found = Candidates(*(torch.cat(each, 1) for each in zip(*parts, strict=True)))
    seen = [list[Subject]() for _ in x]
    free = torch.ones_like(maps[:, 0])
    for _ in range(MOST):
        chosen, colour, match = _most_evident(found, free.flatten(1))
        for picture in (chosen >= 0).nonzero()[:, 0].tolist():
            k = int(chosen[picture])
            drawing, top, left, scale = (int(each[picture, k]) for each in found[:4])
            item, art = _item(maps[picture], drawing, top, left, scale)
            whole = (drawings().bodies[drawing] + art).view(ART, ART) > 0
            box = _cover(free[picture], whole, top, left, scale)
            kind, hue = CAST[drawings().casts[drawing]].name, COLOURS[int(colour[picture])]
            seen[picture].append(Subject(kind, hue, item, *box, float(match[picture])))
        if (chosen < 0).all():
            break
    return [
        Recognised(BACKGROUNDS[number].name, tuple(each))
        for number, each in zip(background.tolist(), seen, strict=True)
    ]


def _most_evident(found: Candidates, free: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The most evident candidate of each picture, −1 if none is; its colour and match: (B,) each.

    ``free`` (B, S·S) is 1 where no subject was found yet, else 0.
    """
    seen = free.gather(1, found.places.flatten(1)).view(found.places.shape) * found.solid
    count = seen.sum(2)
    sums, colour = torch.einsum("bkcp,bkp->bkc", found.matches, seen).max(2)
    match = sums / count.clamp(min=1)
    enough = (count >= VISIBLE * found.solid.sum(2)) & (match >= LEAST)
    evidence = (sums - CHANCE * count) * found.scale**2 * enough
    best, chosen = evidence.max(1)
    here = chosen[:, None]
    chosen = torch.where(best > 0, chosen, -1)
    return chosen, colour.gather(1, here)[:, 0], match.gather(1, here)[:, 0]


def _cover(
    free: Tensor, drawn: Tensor, top: int, left: int, scale: int
) -> tuple[int, int, int, int]:
    """Set ``free`` (S, S) to 0 where (16, 16) is drawn; its box: left, top, width, height."""
    square = drawn.repeat_interleave(scale, 0).repeat_interleave(scale, 1)
    y, x = (square.nonzero() + torch.tensor([top, left])).T
    inside = (y >= 0) & (x >= 0) & (y < len(free)) & (x < len(free))
    free[y[inside], x[inside]] = 0
    start, up = int(x.min()), int(y.min())
    return start, up, int(x.max()) - start + 1, int(y.max()) - up + 1


def _item(maps: Tensor, drawing: int, top: int, left: int, scale: int) -> tuple[str | None, Tensor]:
    """What the subject carries there, and its symbols (P,): the item that matches best, or none."""
    S, channels = maps.shape[1], _channels()[0]
    best, item, art = 0.0, None, torch.zeros(ART**2, dtype=torch.int64)
    for name, symbols in zip(ITEMS, drawings().items[drawing], strict=True):
        here = symbols.nonzero()[:, 0]
        y, x = top + ROWS[here] * scale + scale // 2, left + COLUMNS[here] * scale + scale // 2
        here, y, x = (v[(y >= 0) & (x >= 0) & (y < S) & (x < S)] for v in (here, y, x))
        evidence = float((maps[channels[symbols[here]], y, x] - CHANCE).sum())
        if evidence > best:
            best, item, art = evidence, name, symbols
    return item, art
