"""What a classifier can be asked to tell, and the real pictures it learns this from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from unnoise.data.memory import TensorImages
from unnoise.data.source import Images, ImageSource
from unnoise.data.sprites import SpriteImages, Sprites

Target = Literal["label", "kind", "colour", "item", "material", "facing"]
UNSEEN = 1_000  # sprites of held-out pairings that the classifier does not learn


@dataclass(frozen=True)
class Splits:
    """What a classifier of ``names`` learns from, and what it is held against, by name."""

    names: tuple[str, ...]
    training: Images
    real: dict[str, Images]


def splits(data: ImageSource, target: Target) -> Splits:
    """The pictures of a data set, labelled with the target.

    Of sprites, a classifier also learns pairings that are held out from diffusion models, since it
    has to judge pictures of them.
    """
    training, validation = data.images("train"), data.images("validation")
    if not (isinstance(training, SpriteImages) and isinstance(validation, SpriteImages)):
        return Splits(data.class_names(), training, {"validation": validation})
    assert isinstance(data, Sprites)
    pairings = data.held_out(6 * UNSEEN)
    names = data.class_names()
    if target != "label":
        names = tuple(sorted({*_values(training, target), *_values(pairings, target)}))
    held_out = TensorImages(pairings.images, shown(pairings, target, names))
    images = torch.cat((training.images, held_out.images[UNSEEN:]))
    labels = torch.cat((shown(training, target, names), held_out.labels[UNSEEN:]))
    real: dict[str, Images] = {
        "validation": TensorImages(validation.images, shown(validation, target, names)),
        "held out": TensorImages(held_out.images[:UNSEEN], held_out.labels[:UNSEEN]),
    }
    return Splits(names, TensorImages(images, labels), real)


def shown(images: Images, target: str, names: Sequence[str]) -> Tensor:
    """Which of ``names`` each picture shows: (N,) int64.

    Raises:
        ValueError: the classifier does not know one of them.
    """
    if target == "label" or not isinstance(images, SpriteImages):
        return images.labels
    number = {name: k for k, name in enumerate(names)}
    values = _values(images, target)
    if unknown := set(values) - number.keys():
        raise ValueError(f"the classifier of {target} does not know {', '.join(sorted(unknown))}")
    return torch.tensor([number[value] for value in values])


def _values(images: SpriteImages, target: str) -> list[str]:
    """The attribute of each sprite, "none" where its kind has no such part."""
    return [getattr(each, target) or "none" for each in images.attributes]
