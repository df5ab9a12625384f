"""unnoise-figure: pictures of what generative models do."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from PIL import Image

from unnoise.cli.request import Request, run_request
from unnoise.config.faults import Device, Look, run_fault
from unnoise.config.problems import Problem
from unnoise.data.source import ImageSource
from unnoise.diffusion.samplers import Sampler
from unnoise.files import file_fault, write_durably
from unnoise.models.averages import Averaged
from unnoise.models.trained import DataChanged
from unnoise.report.figures.forward import DataFigure
from unnoise.report.figures.sampling import ModelFigure, Samplers
from unnoise.runs.checkpoints import find_checkpoint
from unnoise.runs.layout import RunDirectory, shown


@dataclass(frozen=True, kw_only=True)
class FigureDrawing(Request):
    """What is to be drawn: one field for each key of ``conf/figure.yaml``."""

    figure: DataFigure | ModelFigure
    name: str
    run: Annotated[str | None, Look(run_fault)]
    data: ImageSource | None
    sampler: Sampler | None
    data_changed: DataChanged
    averaged: Averaged
    device: Device
    out: Annotated[str | None, Look(lambda out: file_fault(out, ".png"))]

    def problems(self) -> Iterator[Problem]:
        """Whether the figure is given what it is drawn from, and can be written."""
        if isinstance(self.figure, ModelFigure) and self.run is None:
            yield Problem("run", "missing: this figure takes a model, give it as run=...")
        if isinstance(self.figure, DataFigure) and self.run is not None:
            message = "this figure takes data, not a run: leave it out, or name another figure"
            yield Problem("run", message)
        if isinstance(self.figure, DataFigure) and self.data is None:
            yield Problem("data", "missing: this figure takes data, give it as data=...")
        if self.sampler is not None and isinstance(self.figure, DataFigure | Samplers):
            own = " but those of figure.samplers" if isinstance(self.figure, Samplers) else ""
            yield Problem("sampler", f"this figure takes no sampler{own}: leave it out")
        there = self.run is None or not run_fault(self.run)
        if self.out is None and there and (fault := file_fault(self._path())):
            yield Problem("out", fault)

    def answer(self, config: dict[str, Any]) -> None:
        """Draw, write, and say where."""
        started, picture = time.monotonic(), self._drawn()
        path = self._path()
        write_durably(path, lambda temporary: picture.save(temporary, format="PNG"))
        (width, height), seconds = picture.size, time.monotonic() - started
        print(f"{self.name}: {width} × {height} pixels in {seconds:.0f} s\n  {shown(path)}")

    def _path(self) -> Path:
        """Where the figure goes: ``out``, else among the run's or all others."""
        if self.out is not None:
            return Path(self.out)
        folder = Path("outputs") / "figures"
        if self.run is not None:
            folder = RunDirectory.of(find_checkpoint(Path(self.run))).figures
        return folder / f"{self.name}.png"

    def _drawn(self) -> Image.Image:
        from unnoise.models.trained import TrainedModel

        if isinstance(self.figure, DataFigure):
            assert self.data is not None
            self.data.prepare()
            return self.figure.draw(self.data)
        assert self.run is not None
        options: Any = {"averaged": self.averaged, "data_changed": self.data_changed}
        trained = TrainedModel.load(self.run, device=self.device, **options)
        self.figure.check(trained.model)
        trained = replace(trained, data=self.data, sampler=self.sampler or trained.sampler)
        for scale in self.figure.guidance(trained.sampler):
            trained.check_guidance(scale)
        return self.figure.draw(trained)


def main() -> None:
    """The command's entry point."""
    run_request("figure", FigureDrawing)
