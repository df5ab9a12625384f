"""Drawing from a model under conditions, and what is drawn."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Any, Self

import torch
from torch import Tensor

from unnoise.diffusion.noise import Noise
from unnoise.diffusion.samplers import Sampler, Watch
from unnoise.models.base import GenerativeModel
from unnoise.models.prompts import Prompts


@dataclass(frozen=True, eq=False)
class Drawn:
    """N drawn pictures and their prompts, on the CPU.

    Args:
        pixels: (N, C, H, W) uint8.
        captions: the prompts as text, or None for an unconditional model.
        prompts: the prompts as pictures (N, 1 or C, h, w) uint8, where the model reads pictures.
    """

    pixels: Tensor
    captions: list[str] | None = None
    prompts: Tensor | None = None

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, rows: slice) -> Self:
        captions = None if self.captions is None else self.captions[rows]
        prompts = None if self.prompts is None else self.prompts[rows]
        return type(self)(self.pixels[rows], captions, prompts)

    @classmethod
    def joined(cls, parts: Iterable[Self]) -> Self:
        """All parts as one, in order."""
        pixels, captions, prompts = zip(
            *((p.pixels, p.captions, p.prompts) for p in parts), strict=True
        )
        return cls(
            torch.cat(pixels),
            None if captions[0] is None else [*chain(*captions)],
            None if prompts[0] is None else torch.cat(prompts),
        )


def draw(
    model: GenerativeModel,
    sampler: Sampler,
    prompts: Prompts,
    seed: int,
    ids: Iterable[int],
    batch_size: int = 64,
    watch: Watch | None = None,
    **guides: Any,
) -> Drawn:
    """One picture for each id: a function of seed and id alone, whatever the batch size.

    ``guides`` are further arguments of the model's ``sample``: an edit, a weak model, a classifier.
    """
    parts = []
    for some in torch.split(torch.tensor([*ids], device=model.device), batch_size):
        batch = prompts.batch(some)
        shown = prompts.captions(batch), prompts.pictures(batch)
        pixels = model.sample(sampler, Noise(seed, some), batch, watch, **guides).cpu()
        parts.append(Drawn(pixels, *shown))
    return Drawn.joined(parts)
