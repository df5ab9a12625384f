"""The labels that a classifier can learn, and the real pictures that it learns them from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from unnoise.data.memory import TensorImages
from unnoise.data.source import HoldsOut, Images, ImageSource

Target = Literal["label", "kind", "colour", "item", "material", "facing"]
UNSEEN = 1_000  # sprites of held-out pairings that the classifier does not learn


@dataclass(frozen=True)
class Splits:
    """What a classifier of ``names`` learns from, and what it is tested on, by name."""

    names: tuple[str, ...]
    training: Images
    real: dict[str, Images]


def splits(data: ImageSource, target: Target) -> Splits:
    """The pictures of a data set, labelled with the target.

    Where pairings are held out, a classifier also learns those, since it has to
    judge pictures of them.
    """
    training, validation = data.images("train"), data.images("validation")
    if not isinstance(data, HoldsOut):
        return Splits(data.class_names(), training, {"validation": validation})
    pairings = data.held_out(6 * UNSEEN)
    names = data.class_names()
    if target != "label":
        names = tuple(sorted({*_values(training, target), *_values(pairings, target)}))
    held_out = TensorImages(pixels(pairings), shown(pairings, target, names))
    images = torch.cat((pixels(training), held_out.images[UNSEEN:]))
    labels = torch.cat((shown(training, target, names), held_out.labels[UNSEEN:]))
    real: dict[str, Images] = {
        "validation": TensorImages(pixels(validation), shown(validation, target, names)),
        "held out": TensorImages(held_out.images[:UNSEEN], held_out.labels[:UNSEEN]),
    }
    return Splits(names, TensorImages(images, labels), real)


def shown(images: Images, target: str, names: Sequence[str]) -> Tensor:
    """Which of ``names`` each picture shows: (N,) int64.

    Raises:
        ValueError: the classifier does not know one of them.
    """
    if target == "label" or images.attributes is None:
        return images.labels
    number = {name: k for k, name in enumerate(names)}
    values = _values(images, target)
    if unknown := set(values) - number.keys():
        raise ValueError(f"the classifier of {target} does not know {', '.join(sorted(unknown))}")
    return torch.tensor([number[value] for value in values])


def pixels(images: Images) -> Tensor:
    """All pictures of a split: (N, C, H, W) uint8."""
    return images.read(torch.arange(len(images)))


def _values(images: Images, target: str) -> list[str]:
    """The attribute of each sprite, "none" where it has no such part."""
    return [getattr(each, target) or "none" for each in images.attributes or ()]
