"""Prompts: the conditioning inputs (labels, captions, pictures) of each sample, by its id."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from unnoise.data.source import Images
from unnoise.diffusion.editing import Edit, Interpolate
from unnoise.models.base import Classifier, GenerativeModel
from unnoise.networks.conditioning import ClassConditioner, TextConditioner

Batch = dict[str, Any]


class Prompts:
    """The conditioning inputs of the sample of any id, as a function of the id.

    What is not given comes from the conditioner's own examples; where it has none, from validation
    pictures; with a classifier, its classes in turn.

    Args:
        model: whose conditioner reads the prompts.
        validation: opens the validation split, called only where it is needed.
        class_names: for captions of labels.
        given: by "label" numbers or names of classes, by "caption" texts, by "negative" those of
            the weaker branch of guidance, by "image" uint8 (N, C, H, W); used in turn.
        classes: of the data, for a conditioner that reads labels without a table of classes.
        classifier: guides, towards the labels.

    Raises:
        ValueError: something is given that the model does not read, or that is out of range.
    """

    def __init__(
        self,
        model: GenerativeModel,
        validation: Callable[[], Images],
        class_names: Sequence[str] = (),
        given: Mapping[str, Any] | None = None,
        classes: int | None = None,
        classifier: Classifier | None = None,
    ) -> None:
        self.conditioner, self.validation = model.conditioner, validation
        self.reconstructs = model.reconstructs
        self.class_names = class_names
        self.given = {key: values for key, values in (given or {}).items() if values is not None}
        self.keys = () if model.conditioner is None else model.conditioner.reads
        self.names = None if classifier is None else classifier.names
        self.known = {*self.keys, *(() if classifier is None else ("label",))}
        parts = [*model.conditioner.modules()] if model.conditioner else []
        texts = any(isinstance(part, TextConditioner) for part in parts)
        for key, values in self.given.items():
            name = "negative caption" if key == "negative" else key
            if key not in self.known and not (key == "negative" and texts):
                reads = f"reads {'s and '.join(sorted(self.known))}s"
                what = reads if self.known else "is unconditional"
                needs = ": they take a TextConditioner" if key == "negative" else ""
                raise ValueError(f"{name}s are given, but the model {what}{needs}")
            if len(values) == 0:
                raise ValueError(f"{name}s are given, but the list is empty")
            for number, text in enumerate(values if key in ("caption", "negative") else ()):
                if not text.strip() and (text or key == "caption"):
                    raise ValueError(f"{name} {number} is empty")
        if model.conditioner is not None:
            tables = [part.classes for part in parts if isinstance(part, ClassConditioner)]
            classes = min(tables, default=classes)
        if "label" in self.keys and self.names is not None and len(self.names) != classes:
            raise ValueError(
                f"the classifier knows {len(self.names)} classes, but the model {classes}"
            )
        if self.names is not None:
            classes = len(self.names)
            pairs = zip(self.names, class_names if "label" in self.keys else (), strict=False)
            for label, (theirs, ours) in enumerate(pairs):
                if theirs != ours:
                    both = f"by label {label} the classifier means {theirs}, but the model {ours}"
                    raise ValueError(f"{both}: train one on the run's data")
        images, named = self.given.get("image"), class_names if self.names is None else self.names
        labels = [label_of(label, named) for label in self.given.get("label", ())]
        if labels:
            self.given["label"] = labels
        if classes is not None and not all(0 <= label < classes for label in labels):
            raise ValueError(f"labels {list(labels)} are not classes 0 … {classes - 1}")
        if images is not None and (images.dtype, images.shape[1:]) != (torch.uint8, model.shape):
            raise ValueError(
                f"images must be uint8 (N, {', '.join(map(str, model.shape))}), "
                f"not {images.dtype} {tuple(images.shape)}"
            )

    def batch(self, ids: Tensor) -> Batch:
        """What the conditioner reads of samples ``ids`` (B,); empty for an unconditional model.

        Validation pictures begin again after the last.

        Raises:
            ValueError: the prompts come from the run's data, which cannot be read here.
        """
        batch = {key: _in_turn(values, ids) for key, values in self.given.items()}
        if self.names is not None and "label" not in batch:
            batch["label"] = ids % len(self.names)
        missing = [key for key in self.keys if key not in batch]
        if not missing or self.conditioner is None:
            return batch
        examples = self.conditioner.examples(ids)
        if examples is None:
            try:
                images = self.validation()
            except (OSError, ImportError) as error:
                raise ValueError(
                    f"give {'s and '.join(missing)}s: the run's data, from which they would be "
                    f"taken, cannot be read here ({error})"
                ) from error
            rows = ids.cpu() % len(images)
            examples = {"label": images.labels[rows].to(ids.device)}
            if "image" in missing:
                examples["image"] = images.read(rows).to(ids.device)
            if images.captions is not None:
                examples["caption"] = [images.captions[i] for i in rows.tolist()]
        return {key: examples[key] for key in missing} | batch

    def check_number(self, end: int) -> None:
        """ValueError if reconstructions up to ``end`` (exclusive) have too few pictures."""
        if self.reconstructs and "image" not in self.given:
            there = len(self.validation())
            if end > there:
                raise ValueError(f"there are only {there} validation pictures to reconstruct, "
                                 f"not {end}: ask for fewer (n, first)")  # fmt: skip

    def captions(self, batch: Batch) -> list[str] | None:
        """A batch of prompts as text: the conditioner's words, or else the names of classes."""
        if self.conditioner is None:
            return None
        words = self.conditioner.words(batch)
        if words is None and "label" in self.keys:
            names = dict(enumerate(self.class_names))
            return [names.get(label, f"class {label}") for label in batch["label"].tolist()]
        return words

    def pictures(self, batch: Batch) -> Tensor | None:
        """A batch of prompts as pictures (B, 1 or C, h, w) uint8 on the CPU, or None."""
        pictures = None if self.conditioner is None else self.conditioner.picture(batch)
        return None if pictures is None else pictures.cpu()

    def check_edit(self, edit: Edit | None) -> None:
        """ValueError unless what the edited picture shows, or one prompt between two, is given."""
        if isinstance(edit, Interpolate):
            for key in sorted(self.known):
                if len(self.given.get(key, ())) != 1:
                    raise ValueError(f"an interpolation keeps to one {key}: give {key}s with one")
        elif edit is not None:
            for key in ("label", "caption"):
                if key in self.keys and key not in self.given:
                    raise ValueError(
                        f"the model reads {key}s: say what the edited picture shows, by {key}s"
                    )


def label_of(label: int | str, class_names: Sequence[str]) -> int:
    """The number of a class that is given by number or by name.

    Raises:
        ValueError: no class is called so; the message has the names nearest to it.
    """
    if not isinstance(label, str):
        return label
    if not class_names:
        raise ValueError(
            f"labels: {label!r}: what the classes are called is not known: use numbers"
        )
    if label not in class_names:
        folded = {name.casefold(): name for name in class_names}
        near = difflib.get_close_matches(label.casefold(), folded, n=3, cutoff=0)
        names = ", ".join(folded[name] for name in near)
        raise ValueError(f"labels: there is no class {label!r}; nearest are {names}")
    return class_names.index(label)


def _in_turn(values: Any, ids: Tensor) -> Any:
    """values[k mod N] for each id k: a list of texts, or a tensor."""
    if isinstance(values[0], str):
        return [values[k % len(values)] for k in ids.tolist()]
    return torch.as_tensor(values).to(ids.device)[ids % len(values)]
