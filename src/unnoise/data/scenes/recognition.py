"""What a scene shows, recognised by its art: the background, and which subjects stand where.

Nothing is learned. The pixels b of a subject have known tones a, given its colour; of skin, hair
and the like those of the nearest ramp. How well it matches at a place is the correlation

    ρ = Σ (b − ā)(a − ā) / √(Σ |b − ā|² Σ |a − ā|²),  ā the mean of a,

over colours and pixels: 1 where b = ā + g·(a − ā) for some g > 0, so that a blurred subject still
matches, and less in other colours. Subjects are found one after the other, the most evident first,
and a pixel that one of them covers counts for no other: who stands behind is recognised by what is
seen of him.

Shapes: B pictures of S × S pixels, L drawings of P = 16·16 pixels, K candidates: a drawing at a
place in a size.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from unnoise.data.scenes.backgrounds import BACKGROUNDS, SYMBOLS
from unnoise.data.scenes.layout import scales
from unnoise.data.scenes.panoramas import HORIZON, SIDE
from unnoise.data.scenes.plans import CAST
from unnoise.data.scenes.templates import ART, LUMA, drawings, kernels, moods, ramps, tones
from unnoise.data.sprites.drawings import COLOURS, ITEMS

NEAR = 16.0  # levels of 255: how far a pixel of a background is from its tones
CHANCE = 0.45  # a correlation that is evidence neither for a subject nor against it
LEAST = 0.6  # of the most evident subject, ρ times the root of the share of it that is seen
BESIDE = 0.7  # of the others, as a share of its ρ: where one is blurred, all are
VISIBLE = 0.4  # of a subject's pixels, at least
CANDIDATES = 40  # a size
MOST = 8  # subjects
SMALLEST = 10  # of the side of what is drawn
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


class Candidates(NamedTuple):
    """K drawings at places in the pictures.

    Args:
        drawing: (B, K) its number.
        top: (B, K) the row of its first pixel, which may lie outside, as may ``left``'s column.
        scale: (B, K) picture pixels per pixel of the drawing.
        places: (B, K, P) the pixel of the picture, 0 … S·S − 1.
        solid: (B, K, P) 1 where something is drawn that lies in the picture, else 0.
        pixels: (B, K, P, 3) of the picture, 0 … 255.
    """

    drawing: Tensor
    top: Tensor
    left: Tensor
    scale: Tensor
    places: Tensor
    solid: Tensor
    pixels: Tensor


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
    owners, behind, floor = moods()
    total = torch.zeros(len(pictures), len(owners))
    upper, lower = pictures[:, :, : HORIZON[0] * unit], pictures[:, :, (HORIZON[1] + 1) * unit :]
    for part, each in ((upper, behind), (lower, floor)):
        pixels = part[:, :, :: 2 * unit, :: 2 * unit].flatten(2)
        far = squared_distances(pixels, each.flatten(0, 1)[None])
        total += (
            (far.reshape(len(far), *each.shape[:2], -1).amin(2) * (-0.5 / NEAR**2)).exp().sum(2)
        )
    return owners[total.argmax(1)]


def _means(pictures: Tensor, scale: int) -> Tensor:
    """Over the square of ``scale`` pixels whose first is each pixel; beyond the edge is 0."""
    S, shifts = pictures.shape[2], range(scale)
    padded = F.pad(pictures, (0, scale - 1) * 2)
    rows = torch.stack([padded[:, :, k : k + S] for k in shifts]).mean(0)
    return torch.stack([rows[..., k : k + S] for k in shifts]).mean(0)


def _candidates(means: Tensor, scale: int) -> Candidates:
    """Where the luma of drawings correlates best with that of pictures (B, 3, S, S)."""
    B, S = len(means), means.shape[2]
    luma = (means * LUMA[:, None, None]).sum(1, keepdim=True)
    padded = F.pad(luma - 128, (0, (ART - SMALLEST) * scale) * 2)
    shapes, known = kernels()
    product = F.conv2d(padded, shapes, dilation=scale)
    sums, squares = (F.conv2d(each, known, dilation=scale) for each in (padded, padded**2))
    count = known.sum((1, 2, 3))[:, None, None]
    energy = shapes.square().sum((1, 2, 3))[:, None, None]
    score = product * ((squares - sums**2 / count).clamp(min=count * 4) * energy).rsqrt()
    score = torch.where(score == F.max_pool2d(score, 3, 1, 1), score, -1)
    N = score.shape[2]
    number = score.flatten(1).topk(CANDIDATES, 1).indices
    found, drawing = drawings(), number // N**2
    top, left = number % N**2 // N, number % N
    top = top - found.corners[drawing, 0] * scale
    left = left - found.corners[drawing, 1] * scale
    y, x = top[..., None] + ROWS * scale, left[..., None] + COLUMNS * scale
    inside = (y >= 0) & (x >= 0) & (y <= S - scale) & (x <= S - scale)
    places = torch.where(inside, y * S + x, 0)
    solid = ((found.bodies[drawing] > 0) & inside).float()
    rows = torch.arange(B)[:, None, None]
    pixels = means.flatten(2).mT[rows, places]
    return Candidates(drawing, top, left, torch.full_like(top, scale), places, solid, pixels)


class Sums(NamedTuple):
    """Over the weighted pixels of N drawings in pictures.

    Args:
        counts: (N, symbols) how many there are of each symbol.
        pixels: (N, symbols, 3) Σ of the picture's pixels there.
        squares: (N,) Σ of their squares, in all.
    """

    counts: Tensor
    pixels: Tensor
    squares: Tensor

    @classmethod
    def of(cls, symbols: Tensor, weight: Tensor, pixels: Tensor) -> "Sums":
        """Of symbols and weights (N, P), and pixels (N, P, 3)."""
        count = pixels.new_zeros(len(symbols), len(SYMBOLS)).scatter_add(1, symbols, weight)
        b = weight[..., None] * pixels
        zeros = pixels.new_zeros(*count.shape, 3)
        sums = zeros.scatter_add(1, symbols[..., None].expand_as(b), b)
        return cls(count, sums, (b * pixels).sum((1, 2)))


def nearest_tones(sums: Sums, background: Tensor) -> Tensor:
    """Tones (N, 8 colours, symbols, 3) on backgrounds (N,).

    Of hair and the like they are those of the ramp that is nearest to the pixels.
    """
    found = tones()[background]
    for symbols, several in ramps():
        each = several[background]  # (N, ramps, s, 3)
        count, pixels = sums.counts[:, None, symbols, None], sums.pixels[:, None, symbols]
        far = (count * each.square() - 2 * each * pixels).sum((2, 3))
        best = each[torch.arange(len(each)), far.argmin(1)]
        found[:, :, symbols] = best[:, None]
    return found


def correlation(sums: Sums, tones: Tensor) -> Tensor:
    """ρ of drawings in tones (N, C, symbols, 3), a, and the pixels of the sums, b: (N, C)."""
    count = sums.counts[:, None]
    total = count.sum(2).clamp(min=1)  # (N, 1)
    mean = (count[..., None] * tones).sum(2) / total[..., None]  # (N, C, 3)
    a = tones - mean[:, :, None]
    product = (a * sums.pixels[:, None]).sum((2, 3))
    of_a = (a.square().sum(3) * count).sum(2)
    of_b = sums.squares[:, None] - 2 * (mean * sums.pixels.sum(1)[:, None]).sum(2)
    of_b = of_b + total * mean.square().sum(2)
    return product * (of_a * of_b).clamp(min=1).rsqrt()


@torch.inference_mode()
def recognise(pictures: Tensor) -> list[Recognised]:
    """What each of the pictures (B, 3, S, S) uint8 shows, S 64 or 128."""
    x = pictures.float()
    background = backgrounds(x)
    parts = [_candidates(_means(x, scale), scale) for scale in scales(x.shape[2]).values()]
    found = Candidates(*(torch.cat(each, 1) for each in zip(*parts, strict=True)))
    seen = [list[Subject]() for _ in x]
    free, least = torch.ones_like(x[:, 0]), torch.full((len(x), 1), LEAST)
    for number in range(MOST):
        chosen, hue, match = _most_evident(found, background, free.flatten(1), least)
        for picture in (chosen >= 0).nonzero()[:, 0].tolist():
            k = int(chosen[picture])
            drawing, top, left, scale = (int(each[picture, k]) for each in found[:4])
            place = int(background[picture])
            spot = free[picture].flatten()[found.places[picture, k]]
            item, art = _item(found.pixels[picture, k], spot, drawing, place)
            whole = (drawings().bodies[drawing] + art).view(ART, ART) > 0
            box = _cover(free[picture], whole, top, left, scale)
            kind = CAST[drawings().casts[drawing]].name
            colour = COLOURS[int(hue[picture])]
            seen[picture].append(Subject(kind, colour, item, *box, float(match[picture])))
        if (chosen < 0).all():
            break
        if number == 0:
            least = BESIDE * match[:, None]
    return [
        Recognised(BACKGROUNDS[place].name, tuple(each))
        for place, each in zip(background.tolist(), seen, strict=True)
    ]


def _most_evident(
    found: Candidates, background: Tensor, free: Tensor, least: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The most evident candidate of each picture, −1 if none is; its colour and match: (B,) each.

    ``free`` (B, S·S) is 1 where no subject was found yet, else 0; ``least`` (B, 1) is what ρ times
    the root of the share that is seen must be.
    """
    weight = free.gather(1, found.places.flatten(1)).view(found.places.shape) * found.solid
    symbols = drawings().bodies[found.drawing]
    sums = Sums.of(*(each.flatten(0, 1) for each in (symbols, weight, found.pixels)))
    dressed = nearest_tones(sums, background.repeat_interleave(weight.shape[1]))
    match, hue = correlation(sums, dressed).view(*weight.shape[:2], -1).max(2)
    count = weight.sum(2)
    share = count / (symbols > 0).sum(2)
    enough = (share >= VISIBLE) & (match * share.sqrt() >= least)
    evidence = count * (match - CHANCE) * found.scale**2 * enough
    best, chosen = evidence.max(1)
    here = chosen[:, None]
    chosen = torch.where(best > 0, chosen, -1)
    return chosen, hue.gather(1, here)[:, 0], match.gather(1, here)[:, 0]


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


def _item(pixels: Tensor, free: Tensor, drawing: int, background: int) -> tuple[str | None, Tensor]:
    """What a subject carries and the item's symbols (P,), or none; by its pixels that are free.

    ``pixels`` are (P, 3), ``free`` (P,) is 1 where no subject before it was found, else 0.
    """
    nothing = torch.zeros(ART**2, dtype=torch.int64)
    symbols = drawings().items[drawing]  # (4, P)
    if not symbols.any():
        return None, nothing
    sums = Sums.of(symbols, (symbols > 0) * free, pixels.expand(len(symbols), -1, -1))
    dressed = nearest_tones(sums, torch.full((len(symbols),), background))
    match, item = correlation(sums, dressed[:, :1])[:, 0].max(0)
    return (ITEMS[int(item)], symbols[item]) if match > CHANCE else (None, nothing)
