"""Classifiers of what samples show, and the prompts that they are compared with."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from unnoise.config.problems import Problem
from unnoise.config.schema import arguments
from unnoise.data.memory import TensorImages
from unnoise.data.source import HoldsOut, Images, ImageSource, Recognises
from unnoise.models.classifier import FOLDER, NoisyClassifier, classifier_file
from unnoise.models.trained import TrainedModel
from unnoise.runs.identity import differences

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
    recognise pictures of them.
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


SAME_DATA = ("_target_", "image_size", "fit", "channels", "classes", "seed")
"""Keys of a data node in which a classifier must agree with the run."""
load = functools.cache(NoisyClassifier.load)
"""Reads a file once, for the check and for what follows."""
Classifiers = dict[str, NoisyClassifier]
"""Classifiers by what they predict: "label", "kind" or "colour"."""


@dataclass(frozen=True)
class PromptSet:
    """Prompts, and real pictures that show them.

    With ``captions`` sample n is to show what real picture n does, else class n mod K.
    """

    name: str
    real: Images
    captions: Sequence[str] | None = None

    def options(self, classifiers: Classifiers) -> dict[str, Any]:
        """The prompts as options of a model's ``draw``."""
        if self.captions is not None:
            return {"captions": list(self.captions)}
        return {"labels": list(range(len(classifiers["label"].names)))}

    def labels(self, classifiers: Classifiers, n: int | None = None) -> dict[str, Tensor]:
        """What samples 0 … n − 1 are to show, else the real ones do: for each classifier (N,)."""
        if n is not None and self.captions is None:
            return {"label": torch.arange(n) % len(classifiers["label"].names)}
        return {key: shown(self.real, key, each.names)[:n] for key, each in classifiers.items()}


def needed_labels(trained: TrainedModel, by_classifier: bool) -> tuple[str, ...]:
    """What must be recognised in a model's samples: "label", or "kind" and "colour" of captions.

    ``by_classifier`` says that it is guided by one, to its classes.

    Raises:
        ValueError: the model is unconditional, or reads what no classifier recognises.
    """
    conditioner = trained.model.conditioner
    reads = () if conditioner is None else conditioner.reads
    if reads == ("label",) or (by_classifier and not reads):
        return ("label",)
    if not reads:
        raise ValueError("the model is unconditional: it has no prompts (but see classifier)")
    if by_classifier:
        raise ValueError("a classifier guides models of classes, and unconditional ones, only")
    if reads == ("caption",):
        return "kind", "colour"
    raise ValueError(f"classes and captions can be judged; the model reads {' and '.join(reads)}")


def find(
    given: Sequence[str] | None, needed: Sequence[str], trained: TrainedModel
) -> tuple[dict[str, Path], list[Problem]]:
    """A classifier's file for each of the needed labels, and what is wrong with those given.

    If none are ``given``, the newest that were trained on the same data are taken from ``FOLDER``.
    """
    data, names = trained.config["data"], trained.class_names
    if given is None:
        files = sorted(FOLDER.glob("*/classifier.pt"), key=lambda path: path.stat().st_mtime)
    else:
        files = [classifier_file(each) for each in given]
    classifiers: dict[str, Path] = {}
    faults = []
    for path in files:
        try:
            classifier = load(path)
        except (FileNotFoundError, ValueError) as error:
            faults.append(str(error))
            continue
        if "data" not in classifier.about:
            faults.append(f"{path} does not say what data it is for")
        elif different := _differences(classifier.about["data"], data):
            faults.append(f"{path} is for other data: {different}")
        elif classifier.target == "label" and names and classifier.names != names:
            pairs = zip_longest(classifier.names, names, fillvalue="nothing")
            k, (theirs, ours) = next((k, p) for k, p in enumerate(pairs) if p[0] != p[1])
            faults.append(f"{path} is for other classes: label {k} means {theirs}, not {ours}")
        elif given is not None or classifier.target in needed:
            classifiers[classifier.target] = path
    found = [] if given is None else [Problem("judge", fault) for fault in faults]
    missing = [label for label in needed if label not in classifiers]
    if missing and not found:
        size = f"data.image_size={data['image_size']}".replace(" ", "")
        train = [f"unnoise-classifier data=… {size} target={label}" for label in missing]
        where = f"in {FOLDER}" if given is None else "among those given"
        reason = f"no judge of {' and '.join(missing)} for this data {where}: train it by "
        found.append(Problem("judge", reason + " and ".join(train)))
    return classifiers, found


def _differences(theirs: dict[str, Any], data: dict[str, Any]) -> str:
    one, other = ({key: node[key] for key in SAME_DATA if key in node} for node in (theirs, data))
    found = differences(one, other, arguments).items()
    return ", ".join(f"{key} {then}, not {now}" for key, (then, now) in found)


def prompt_sets(data: ImageSource, labels: Sequence[str], n: int) -> list[PromptSet]:
    """Every class; or captions of what is seen in training, and of each sort held out from it.

    Raises:
        ValueError: no captions have held-out pairings, or there are fewer than n.
    """
    if "label" in labels:
        return [PromptSet("class", data.images("validation"))]
    if not isinstance(data, HoldsOut | Recognises):
        raise ValueError("captions are judged of data with held-out pairings, as data=sprites")
    most = min(UNSEEN, data.validation_size)
    if n > most:
        raise ValueError(f"n {n} is more than the {most} captions there are")
    pictures: dict[str, Images]
    if isinstance(data, Recognises):
        pictures = {"seen": data.images("validation")}
        pictures |= {f"held-out {sort}": data.held_out(n, [sort]) for sort in data.novelties}
    else:
        pictures = {
            "seen pairings": data.images("validation"),
            "held-out pairings": data.held_out(UNSEEN),
        }
    return [PromptSet(name, real, real.captions) for name, real in pictures.items()]
