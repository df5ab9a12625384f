"""unnoise-extractor: train the small network whose features a data set's own metrics use."""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from unnoise.cli.request import Data, Request, data_fault, run_request
from unnoise.config.faults import Folder, Look
from unnoise.config.numbers import Number
from unnoise.config.problems import Problem
from unnoise.evaluation.extractors.find import train_extractor
from unnoise.files import folder_fault
from unnoise.runs.layout import shown

FOLDER = Path("outputs") / "extractors"


def name_fault(name: str) -> str | None:
    """Whether an extractor can be called so."""
    if name in ("auto", "inception"):
        return f"{name} has a meaning of its own: choose another"
    if not re.fullmatch("[a-z][a-z0-9_]*", name):
        return f"{name!r} is to become a part of fd_{name}: use a-z, 0-9 and _"
    return None


@dataclass(frozen=True, kw_only=True)
class ExtractorTraining(Request):
    """What is to be trained: one field for each key of ``conf/extractor.yaml``."""

    data: Data
    name: Annotated[str | None, Look(name_fault)]
    seed: Number
    steps: Annotated[int, Field(ge=2)]
    out: Folder

    def problems(self) -> Iterator[Problem]:
        """Whether the data have classes, and the extractor a name."""
        if self.out is None and (fault := folder_fault(FOLDER)):
            yield Problem("out", fault)
        if not data_fault(self.data) and len(self.data.class_names()) < 2:
            yield Problem("data", "its pictures have no classes")
        if self.name is None and self.data.extractor is None:
            yield Problem("name", "missing: it becomes a part of fd_<name>, as in name=pets")

    def answer(self, config: dict[str, Any]) -> None:
        """Train, measure, write, and say where."""
        name, started = self.name or self.data.extractor, time.monotonic()
        assert name is not None  # checked
        extractor = train_extractor(self.data, name, self.seed, self.steps)
        learned = extractor.learned
        file = f"{name}_{learned.data[:8]}_seed{learned.seed}_{learned.steps}.safetensors"
        path = Path(self.out or FOLDER) / file
        digest, seconds = extractor.save(path), time.monotonic() - started
        print(f"{len(learned.classes)} classes, {learned.steps} steps in {seconds:.0f} s")
        print(f"  accuracy   {learned.accuracy:.1%} on real held-out pictures")
        print(f"  size       {path.stat().st_size / 1000:.0f} kB")
        print(f"  digest     {digest}")
        print(f"  extractor  {shown(path)}")


def main() -> None:
    """The command's entry point."""
    run_request("extractor", ExtractorTraining)
