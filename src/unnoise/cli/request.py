"""The keys of unnoise-sample, and what is wrong between them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from unnoise.cli.checks import folder_problems, run_problems
from unnoise.config.problems import Problem
from unnoise.diffusion.samplers import Sampler
from unnoise.models.classifier import classifier_file
from unnoise.models.edits import EditKeys, unreadable_pictures
from unnoise.runs.checkpoints import find_checkpoint
from unnoise.runs.layout import RunDirectory

Count = Annotated[int, Field(ge=1)]
Number = Annotated[int, Field(ge=0)]


@dataclass(frozen=True, kw_only=True)
class Request(EditKeys):
    """What is to be drawn: one field for each key of ``conf/sample.yaml``."""

    run: str
    n: Count
    seed: Number
    first: Number
    batch_size: Count
    sampler: Sampler | None
    steps: Count | None
    guidance: Annotated[float, Field(ge=0)] | None
    labels: list[Number] | None
    captions: list[str] | None
    images: list[str] | None
    weak: str | None
    classifier: str | None
    averaged: bool
    device: str
    out: str | None
    singles: bool


def request_problems(request: Request) -> Iterator[Problem]:
    """What is wrong between the keys of a request, or with the files that it names."""
    if request.weak is not None:
        yield from run_problems("weak", request.weak)
    if request.classifier is not None and not classifier_file(request.classifier).is_file():
        yield Problem("classifier", f"there is no file {classifier_file(request.classifier)}")
    if request.weak is not None and request.classifier is not None:
        yield Problem("weak", "guidance is by a weak model or by a classifier, not by both")
    if request.weak is not None and request.guidance is None:
        yield Problem("guidance", "say how far to go from the weak model, as in guidance=2")
    yield from unreadable_pictures("images", request.images or [], numbered=True)
    yield from request.edit_problems(request.n, request.first)
    if request.out is not None:
        yield from folder_problems("out", Path(request.out))
    elif not run_problems("run", request.run):
        yield from folder_problems("out", drawn_folder(find_checkpoint(Path(request.run))))


def drawn_folder(checkpoint: Path) -> Path:
    """Where pictures go if no folder is given."""
    return RunDirectory.of(checkpoint).drawn
