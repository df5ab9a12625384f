"""What pictures are asked for: labels, captions and images, taken in turn by number."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from unnoise.data.source import Images
from unnoise.models.diffusion import Classifier, DiffusionModel
from unnoise.networks.conditioning import ClassConditioner


class Prompts:
    """The conditions of the picture of any id, as a function of the id.

    What is not given is the conditioner's own examples; where it has none, those of validation
    pictures; with a classifier, its classes in turn.

    Args:
        model: is asked.
        given: by "label" class numbers, by "caption" texts, by "image" uint8 (N, C, H, W).
        classes: of the data, for a conditioner that reads labels without a table of classes.
        classifier: guides, towards the labels.
        validation: opens the validation split, called only where it is needed.

    Raises:
        ValueError: something is given that the model is not asked by, or not in its range.
    """

    def __init__(
        self,
        model: DiffusionModel,
        given: Mapping[str, Any],
        classes: int | None,
        classifier: Classifier | None,
        validation: Callable[[], Images],
    ) -> None:
        self.model, self.validation = model, validation
        self.given = {key: values for key, values in given.items() if values is not None}
        self.keys = () if model.conditioner is None else model.conditioner.reads
        self.names = None if classifier is None else classifier.names
        self.known = {*self.keys, *(() if classifier is None else ("label",))}
        for key, values in self.given.items():
            if not self.known:
                raise ValueError(f"{key}s are given, but the model is unconditional")
            if key not in self.known:
                wanted = "s and ".join(sorted(self.known))
                raise ValueError(f"{key}s are given, but the model is asked by {wanted}s")
            if len(values) == 0:
                raise ValueError(f"{key}s are given, but there is none of them")
        if model.conditioner is not None:
            parts = model.conditioner.modules()
            tables = [part.classes for part in parts if isinstance(part, ClassConditioner)]
            classes = min(tables, default=classes)
        if "label" in self.keys and self.names is not None and len(self.names) != classes:
            raise ValueError(
                f"the classifier knows {len(self.names)} classes, but the model {classes}"
            )
        self._check_labels(classes if self.names is None else len(self.names))
        self._check_images(model.image_shape)

    def batch(self, ids: Tensor) -> dict[str, Any]:
        """What is asked of pictures ``ids`` (B,)."""
        batch = {key: _in_turn(values, ids) for key, values in self.given.items()}
        if self.names is not None and "label" not in batch:
            batch["label"] = ids % len(self.names)
        missing = [key for key in self.keys if key not in batch]
        if not missing:
            return batch
        try:
            examples = asked(self.model, self.validation, ids) or {}
        except (OSError, ImportError) as error:
            raise ValueError(
                f"give {'s and '.join(missing)}s: the run's data, from which they would be taken, "
                f"cannot be read here ({error})"
            ) from error
        return {key: examples[key] for key in missing} | batch

    def check_told(self) -> None:
        """Whether it is said what a picture shows that is to be edited.

        Raises:
            ValueError: the model is asked by labels or captions, and none is given.
        """
        for key in ("label", "caption"):
            if key in self.keys and key not in self.given:
                raise ValueError(
                    f"the model is asked by {key}s: say what the edited picture shows, by {key}s"
                )

    def check_same(self) -> None:
        """Whether every picture is asked for the same.

        Raises:
            ValueError: more than one of something is given, or none.
        """
        for key in sorted(self.known):
            if len(self.given.get(key, ())) != 1:
                raise ValueError(f"an interpolation keeps to one {key}: give {key}s with one")

    def _check_labels(self, classes: int | None) -> None:
        labels = self.given.get("label", ())
        if classes is not None and not all(0 <= label < classes for label in labels):
            raise ValueError(f"labels {list(labels)} are not classes 0 … {classes - 1}")

    def _check_images(self, shape: tuple[int, ...]) -> None:
        images = self.given.get("image")
        if images is None or (images.dtype == torch.uint8 and tuple(images.shape[1:]) == shape):
            return
        wanted = ", ".join(map(str, shape))
        raise ValueError(
            f"images must be uint8 (N, {wanted}), not {images.dtype} {tuple(images.shape)}"
        )


def _in_turn(values: Any, ids: Tensor) -> Any:
    """values[k mod N] for each id k: a list of texts, or a tensor."""
    if isinstance(values[0], str):
        return [values[k % len(values)] for k in ids.tolist()]
    return torch.as_tensor(values).to(ids.device)[ids % len(values)]


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
