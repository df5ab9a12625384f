"""Drawing from a model under conditions, and what is drawn."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
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
        difference: (N, C, H, W) uint8, how far each is from what it should be, if that is known.
    """

    pixels: Tensor
    captions: list[str] | None = None
    prompts: Tensor | None = None
    difference: Tensor | None = None

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, rows: slice) -> Self:
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        parts: Any = {key: None if value is None else value[rows] for key, value in values.items()}
        return type(self)(**parts)

    @classmethod
    def joined(cls, parts: Iterable[Self]) -> Self:
        """All parts as one, in order."""
        pixels, captions, *pictures = zip(
            *((p.pixels, p.captions, p.prompts, p.difference) for p in parts), strict=True
        )
        return cls(
            torch.cat(pixels),
            None if captions[0] is None else [*chain(*captions)],
            *(None if each[0] is None else torch.cat(each) for each in pictures),
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
        parts.append(Drawn(pixels, *shown, model.difference(pixels, batch)))
    return Drawn.joined(parts)
