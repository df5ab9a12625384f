"""What conditional models are asked for, and how that is shown beside what they draw."""

from collections.abc import Callable, Sequence
from typing import Any

from PIL import Image
from torch import Tensor

from unnoise.data.loading import Images
from unnoise.model import DiffusionModel
from unnoise.pictures import beside, grid, to_pixels

Batch = dict[str, Any]


def asked(model: DiffusionModel, split: Callable[[], Images], ids: Tensor) -> Batch | None:
    """A batch that asks for something: the conditioner's examples, or pictures ``ids`` (B,).

    The latter where it takes data to ask, as for captions; ``split`` opens them, and begins again
    at its end. None for an unconditional model.
    """
    if model.conditioner is None:
        return None
    batch = model.conditioner.examples(ids)
    if batch is None:
        images = split()
        rows = ids.cpu() % len(images)
        batch = {
            "image": images.read(rows).to(model.device),
            "label": images.labels[rows].to(model.device),
        }
        if images.captions is not None:
            batch["caption"] = [images.captions[i] for i in rows.tolist()]
    return batch


def words(
    model: DiffusionModel, batch: Batch | None, class_names: Sequence[str]
) -> list[str] | None:
    """What a batch asks for, to print: the conditioner's words, or else the names of classes."""
    if model.conditioner is None or batch is None:
        return None
    said = model.conditioner.words(batch)
    if said is None and "label" in model.conditioner.reads:
        labels = batch["label"].tolist()
        return [class_names[label] if class_names else f"class {label}" for label in labels]
    return said


def sheet(
    model: DiffusionModel, x: Tensor, batch: Batch | None, class_names: Sequence[str]
) -> Image.Image:
    """Drawn pictures x (N, C, H, W) with what was asked for: words below, pictures to the left."""
    pixels, shown = to_pixels(x).cpu(), None
    if model.conditioner is not None and batch is not None:
        shown = model.conditioner.picture(batch)
    if shown is not None:
        pixels = beside(shown.cpu(), pixels)
    return grid(pixels, captions=words(model, batch, class_names))
