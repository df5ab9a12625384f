"""Which extractor is for which data, and the features of real pictures by it."""

import hashlib
import json
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from unnoise.data.classics import MNIST, FashionMNIST
from unnoise.data.downloads import fetch
from unnoise.data.source import HasLessons, Images, ImageSource, Split
from unnoise.data.stream import split_loader, training_loader
from unnoise.evaluation.extractors import inception
from unnoise.evaluation.extractors.base import Extractor
from unnoise.evaluation.extractors.domain import SHIPPED, DomainExtractor, Learned, fit, shipped
from unnoise.evaluation.extractors.inception import InceptionExtractor, Resize
from unnoise.evaluation.reference import cache_folder

NAMES = ("digits", "garments", "sprites", "scenes")
"""The extractors that come with data sets."""

STEPS = 2500  # of training an extractor
BATCH_SIZE = 128
LARGEST = 32  # side that an extractor of data without lessons reads


def find_extractor(
    name: str,
    source: ImageSource,
    device: torch.device,
    weights: str | None = None,
    resize: Resize = "original",
) -> Extractor:
    """The extractor that a name stands for, on a device.

    "auto" is the data set's own where it has one, else "inception". "garments", "sprites" and
    "scenes" come along; "digits" is trained at its first use, and kept. Anything else is the path
    of a file that unnoise-extractor wrote. ``weights`` and ``resize`` are Inception's: where its
    weights lie (else they are downloaded once), and how pictures come to its size.

    Raises:
        ValueError: there is no such extractor, or what it needs is not there.
    """
    name = (source.extractor or "inception") if name == "auto" else name
    if name == "inception":
        return InceptionExtractor(inception_weights(weights), resize).to(device)
    if weights is not None or resize != "original":
        raise ValueError(f"weights and resize are those of inception; {name} has its own")
    if name in SHIPPED:
        return shipped(name).to(device)
    if name == "digits":
        return _kept(source if isinstance(source, MNIST) else MNIST(), name).to(device)
    try:
        return DomainExtractor.load(Path(name)).to(device)
    except FileNotFoundError as error:
        known = ", ".join(["auto", "inception", *NAMES])
        hint = f"name one of {known}, or a file that unnoise-extractor wrote"
        raise ValueError(f"there is no extractor {name}: {hint}") from error


def inception_weights(path: str | None = None) -> Path:
    """The file of Inception's weights: the one named, else the one downloaded once and verified.

    Raises:
        ValueError: there is no such file, or it cannot be downloaded.
    """
    by_hand = f"Download {inception.URL} (SHA-256 {inception.SHA256})"
    if path is not None:
        if not Path(path).expanduser().is_file():
            raise ValueError(f"weights: there is no file {path}; {by_hand}")
        return Path(path).expanduser()
    kept = cache_folder() / "extractors" / inception.FILE
    if not kept.is_file():
        try:
            fetch([inception.URL], kept, inception.SHA256)
        except (FileNotFoundError, OSError) as error:
            reason = str(error).partition("\nPut ")[0]
            raise ValueError(
                f"Inception's weights are not here.\n{reason}\n{by_hand} and put it into "
                f"{kept.parent}, or set weights to where it is. Digits, garments, scenes "
                "and sprites have extractors of their own; unnoise-extractor trains one for any "
                "data with classes."
            ) from error
    return kept


def train_extractor(
    source: ImageSource, name: str, seed: int = 0, steps: int = STEPS
) -> DomainExtractor:
    """Train the extractor of a data set to tell its classes apart, and measure it on real pictures.

    It is a function of data, name, seed and steps (and of the machine's arithmetic). Pictures with
    a side of more than 32 pixels are read at 32 there, in their shape, unless the data have lessons
    of their own.

    Raises:
        ValueError: the pictures have no classes.
        FileNotFoundError: files of the data set are missing.
    """
    return _trained(_own_size(source), _plan(_own_size(source), name, seed, steps))


def _plan(source: ImageSource, name: str, seed: int, steps: int) -> Learned:
    source.prepare()
    classes = source.lesson_names if isinstance(source, HasLessons) else source.class_names()
    if len(classes) < 2:
        raise ValueError("the pictures have no classes that an extractor could learn to tell apart")
    channels, *pixels = source.shape
    by = 1 if isinstance(source, HasLessons) else min(1, LARGEST / max(pixels))
    height, width = (max(1, round(side * by)) for side in pixels)
    size = height if height == width else (height, width)
    data = source.images("train").fingerprint
    return Learned(name, tuple(classes), channels, size, data, seed, steps)


def _trained(source: ImageSource, plan: Learned) -> DomainExtractor:
    training, held_out = _lessons(source, "train"), _lessons(source, "validation")
    batch_size = min(BATCH_SIZE, len(training))
    batches = training_loader(training, batch_size=batch_size, seed=plan.seed)
    extractor = fit(plan, ((batch["image"], batch["label"]) for batch in batches))
    right = sum(
        float(found(extractor(batch["image"]).logits, batch["label"]).sum())
        for batch in split_loader(held_out, batch_size=256)
    )
    extractor.learned = plan._replace(accuracy=right / len(held_out))
    return extractor


def found(logits: Tensor, labels: Tensor) -> Tensor:
    """The share of each picture's classes that are among its likeliest, as many as it has: (B,).

    ``labels`` are (B,) int64, one class a picture, or (B, K), positive where a class is true of it.
    """
    true = (labels if labels.ndim == 2 else F.one_hot(labels, logits.shape[1])) > 0
    count = true.sum(1, keepdim=True)
    ranked = true.gather(1, logits.argsort(1, descending=True))
    return (ranked & (torch.arange(logits.shape[1]) < count)).sum(1) / count[:, 0]


def _kept(source: ImageSource, name: str) -> DomainExtractor:
    """The extractor of a data set, trained unless it was on this machine before."""
    try:
        plan = _plan(_own_size(source), name, seed=0, steps=STEPS)
    except FileNotFoundError as error:
        raise ValueError(f"the extractor of {name} is trained from its data: {error}") from error
    key = hashlib.sha256(json.dumps(plan).encode()).hexdigest()[:8]
    path = cache_folder() / "extractors" / f"{name}_{key}.safetensors"
    try:
        found = DomainExtractor.load(path)
        if found.learned._replace(accuracy=None) == plan:
            return found
    except (FileNotFoundError, ValueError):
        pass
    extractor = _trained(_own_size(source), plan)
    extractor.save(path)
    return extractor


def _own_size(source: ImageSource) -> ImageSource:
    """The data set as it was published, without a border or a change of size."""
    if isinstance(source, MNIST | FashionMNIST):
        return type(source)(source.root, image_size=28, channels=1)
    return source


def _lessons(source: ImageSource, split: Split) -> Images:
    """The pictures with the labels that an extractor learns."""
    return source.lessons(split) if isinstance(source, HasLessons) else source.images(split)
