"""What can be set for a run: only that is on its page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unnoise.api import Model
from unnoise.diffusion.samplers import Sampler
from unnoise.models.diffusion import DiffusionModel
from unnoise.networks.conditioning import (
    ClassConditioner,
    Edges,
    PictureConditioner,
    TextConditioner,
)


@dataclass(frozen=True)
class Inputs:
    """What one model takes, or at least one of several.

    Args:
        classes: what a label may be, by name or, where they have no names, by number.
        captions: texts are read.
        guidance: its scale at first; None where there is nothing to guide by.
        sketch, picture: pictures are read, as drawings of edges or otherwise.
        samplers: names of those that can draw.
        steps: there are some, to be chosen.
        edits: pictures can be started from.
    """

    classes: tuple[str | int, ...] = ()
    captions: bool = False
    guidance: float | None = None
    sketch: bool = False
    picture: bool = False
    samplers: tuple[str, ...] = ()
    steps: bool = False
    edits: bool = False

    @classmethod
    def of(cls, model: Model, samplers: Mapping[str, Any]) -> "Inputs":
        """Those of a model; ``samplers`` are all there are, by name."""
        conditioner = model.model.conditioner
        parts = [] if conditioner is None else [*conditioner.modules()]
        reads = () if conditioner is None else conditioner.reads
        tables = [part.classes for part in parts if isinstance(part, ClassConditioner)]
        count = min(tables, default=len(model.class_names)) if "label" in reads else 0
        names = model.class_names if len(model.class_names) == count else range(count)
        views = [part.view for part in parts if isinstance(part, PictureConditioner)]
        sketch = any(isinstance(view, Edges) for view in views)
        diffusion = isinstance(model.model, DiffusionModel)
        guided = diffusion and conditioner is not None and _allows(model.check_guidance, 2.0)
        return cls(
            tuple(names),
            any(isinstance(part, TextConditioner) for part in parts),
            model.sampler.guidance.scale if guided else None,
            sketch,
            "image" in reads and not sketch,
            tuple(name for name, each in samplers.items() if _allows(model.check_recipe, each))
            if diffusion
            else (),
            isinstance(model.sampler, Sampler),
            diffusion,
        )

    @classmethod
    def of_all(cls, each: Sequence["Inputs"]) -> "Inputs":
        """What at least one takes, and of samplers and edits what all take."""
        first = each[0]
        scales = [one.guidance for one in each if one.guidance is not None]
        return cls(
            tuple(dict.fromkeys(label for one in each for label in one.classes)),
            any(one.captions for one in each),
            scales[0] if scales else None,
            any(one.sketch for one in each),
            any(one.picture for one in each),
            tuple(name for name in first.samplers if all(name in one.samplers for one in each)),
            any(one.steps for one in each),
            all(one.edits for one in each),
        )

    def taken(self, keys: Mapping[str, Any]) -> dict[str, Any]:
        """Of the keys of ``unnoise-sample`` those that the model takes."""
        takes = {
            "labels": bool(self.classes),
            "captions": self.captions,
            "negative": self.captions,
            "guidance": self.guidance is not None,
            "images": self.sketch or self.picture,
            "sampler": bool(self.samplers),
            "steps": self.steps,
        }
        return {key: value for key, value in keys.items() if takes.get(key, True)}


def _allows(check: Any, value: Any) -> bool:
    try:
        check(value)
    except (ValueError, NotImplementedError):
        return False
    return True
