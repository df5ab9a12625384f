"""Adherence: the judges of a run, what it is asked for, and what they find."""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unnoise.config.problems import Problem
from unnoise.config.schema import arguments
from unnoise.data.source import HoldsOut, Images, ImageSource
from unnoise.data.stream import split_loader
from unnoise.diffusion.samplers import Sampler
from unnoise.evaluation.adherence import Row, agreements
from unnoise.evaluation.targets import UNSEEN, shown
from unnoise.models.classifier import FOLDER, NoisyClassifier, classifier_file
from unnoise.models.trained import TrainedModel
from unnoise.runs.identity import differences

SAME_DATA = ("_target_", "image_size", "fit", "channels", "classes", "seed")
"""Keys of a data node that a judge must share with the run."""
Judges = dict[str, NoisyClassifier]  # by target


@dataclass(frozen=True)
class Question:
    """What is asked of a model, and what real pictures of it are.

    With ``captions`` the n-th picture is to show what the n-th real one does, else class n mod K.
    """

    name: str
    real: Images
    captions: Sequence[str] | None = None


def targets(trained: TrainedModel, guided: bool) -> tuple[str, ...]:
    """What must be judged of pictures that a model draws, ``guided`` by a classifier or not.

    Raises:
        ValueError: it takes more than a class or a caption, or nothing at all, to ask the model.
    """
    conditioner = trained.model.conditioner
    reads = () if conditioner is None else conditioner.reads
    if guided and reads in ((), ("label",)):
        return ("label",)
    if not reads:
        raise ValueError(
            "the model is unconditional: nothing can be asked for (but see classifier)"
        )
    if guided:
        raise ValueError("only what asks for a class, or for nothing, can be guided to a class")
    if reads == ("label",):
        return ("label",)
    if reads == ("caption",):
        return "kind", "colour"
    raise ValueError(f"classes and captions can be judged; the model reads {' and '.join(reads)}")


def find_judges(
    given: Sequence[str] | None, wanted: Sequence[str], data: dict[str, Any]
) -> tuple[dict[str, Path], list[Problem]]:
    """The judge's file for each target, and what is wrong with those that were given.

    Without ``given``, the newest that were trained on the same data are taken from ``FOLDER``.
    """
    if given is None:
        files = sorted(FOLDER.glob("*/classifier.pt"), key=lambda path: path.stat().st_mtime)
    else:
        files = [classifier_file(each) for each in given]
    judges: dict[str, Path] = {}
    found = []
    for path in files:
        try:
            judge = load_judge(path)
        except (FileNotFoundError, ValueError) as error:
            found.append(Problem("judge", str(error)))
            continue
        if "data" not in judge.about:
            found.append(Problem("judge", f"{path} does not say what data it is for"))
        elif told := _differences(judge.about["data"], data):
            found.append(Problem("judge", f"{path} is for other data: {told}"))
        elif given is not None or judge.target in wanted:
            judges[judge.target] = path
    if given is None:
        found = []
    missing = [target for target in wanted if target not in judges]
    if missing and not found:
        size = f"data.image_size={data['image_size']}".replace(" ", "")
        train = [f"unnoise-classifier data=… {size} target={target}" for target in missing]
        where = f"in {FOLDER}" if given is None else "among those given"
        reason = f"no judge of {' and '.join(missing)} for this data {where}: train it by "
        reason += " and ".join(train)
        found.append(Problem("judge", reason))
    return judges, found


@functools.cache
def load_judge(path: Path) -> NoisyClassifier:
    """Read once, for the check and for what follows.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no classifier of unnoise.
    """
    return NoisyClassifier.load(path)


def _differences(theirs: dict[str, Any], data: dict[str, Any]) -> str:
    one, other = ({key: node[key] for key in SAME_DATA if key in node} for node in (theirs, data))
    found = differences(one, other, arguments).items()
    return ", ".join(f"{key} {then}, not {now}" for key, (then, now) in found)


def questions(data: ImageSource, wanted: Sequence[str], n: int) -> list[Question]:
    """What the model is asked for: every class, or captions seen in training and held out.

    Raises:
        ValueError: there are no captions that could be judged, or fewer than n.
    """
    if "label" in wanted:
        return [Question("class", data.images("validation"))]
    if not isinstance(data, HoldsOut):
        raise ValueError("captions are judged of data with held-out pairings, as data=sprites")
    most = min(UNSEEN, data.validation_size)
    if n > most:
        raise ValueError(f"n {n} is more than the {most} captions there are to ask for")
    pictures: dict[str, Images] = {
        "seen pairings": data.images("validation"),
        "held-out pairings": data.held_out(UNSEEN),
    }
    return [Question(name, real, real.captions) for name, real in pictures.items()]


def real_rows(question: Question, judges: Judges) -> Iterator[Row]:
    """What the judges say of real pictures: no drawn ones can be expected to do better."""
    pixels = torch.cat([batch["image"] for batch in split_loader(question.real, batch_size=256)])
    truth = {name: shown(question.real, name, judge.names) for name, judge in judges.items()}
    return _judged("real", question, None, judges, pixels, truth)


def drawn_rows(
    trained: TrainedModel,
    question: Question,
    judges: Judges,
    *,
    sampler: Sampler,
    steps: int | None,
    scale: float,
    n: int,
    seed: int,
    batch_size: int,
    classifier: NoisyClassifier | None,
    progress: bool,
) -> Iterator[Row]:
    """What the judges say of n pictures drawn at a guidance scale."""
    if question.captions is None:
        classes = len(judges["label"].names)
        labels, captions = list(range(classes)), None
        truth = {"label": torch.arange(n) % classes}
    else:
        labels, captions = None, question.captions[:n]
        truth = {name: shown(question.real, name, j.names)[:n] for name, j in judges.items()}
    pictures = trained.draw(
        n,
        sampler=sampler,
        steps=steps,
        guidance=scale,
        seed=seed,
        labels=labels,
        captions=captions,
        classifier=classifier,
        batch_size=batch_size,
        progress=progress,
    )
    return _judged("drawn", question, scale, judges, pictures.pixels, truth)


def _judged(
    pictures: str,
    question: Question,
    scale: float | None,
    judges: Judges,
    pixels: Tensor,
    truth: dict[str, Tensor],
) -> Iterator[Row]:
    found = {target: judge.predict(pixels) for target, judge in judges.items()}
    for target, agreement in agreements(found, truth).items():
        yield Row(pictures, question.name, scale, target, agreement)
