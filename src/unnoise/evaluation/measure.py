"""What unnoise-evaluate measures: the keys of a measure, what is wrong with them, its result."""

import functools
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field

from unnoise.config.faults import Device, Look, run_fault
from unnoise.config.numbers import Count
from unnoise.config.problems import ConfigError, Problem
from unnoise.distributed.devices import named_device
from unnoise.evaluation.results import write
from unnoise.models.averages import Averaged
from unnoise.models.trained import DataChanged, TrainedModel
from unnoise.runs.checkpoints import find_checkpoint
from unnoise.runs.identity import Role, digest
from unnoise.runs.layout import RunDirectory, telling

Scale = Annotated[float, Field(ge=0)]
Keys = dict[str, Any]
"""The keys of a measure as plain values: a sampler is a node."""
load_once = functools.lru_cache(maxsize=1)(TrainedModel.load)


@dataclass(frozen=True)
class Result:
    """What is printed of a measurement, and the files it is in."""

    table: str
    files: list[Path]


@dataclass(frozen=True, kw_only=True)
class Measure(ABC):
    """The keys of every measure; a subclass adds its own. The config's root is its node.

    ``name`` is the measure's in ``conf/measure``; ``shared`` says whether ranks can share it.
    """

    run: Annotated[str | None, Look(run_fault)]
    data_root: str | None
    data_changed: Annotated[DataChanged, Role.CALL]
    batch_size: Count
    device: Device

    name: ClassVar[str]
    shared: ClassVar[bool] = True

    def conflicts(self) -> Iterator[Problem]:
        """What is wrong between the keys, whatever the run is."""
        yield from ()

    @abstractmethod
    def problems(self, keys: Keys) -> Iterator[Problem]:
        """What is wrong between the keys and the run; where they are right by themselves."""

    @abstractmethod
    def measure(self, keys: Keys) -> Result | None:
        """Measure and write; on other ranks than the first there is no result.

        Raises:
            FileNotFoundError: the data are not there.
            ValueError: a file is damaged.
        """

    @functools.cached_property
    def torch_device(self) -> torch.device:
        """The ``device`` of this process."""
        return named_device(self.device)

    @property
    def checkpoint(self) -> Path:
        """The run's newest."""
        assert self.run is not None
        return find_checkpoint(Path(self.run))

    @property
    def folder(self) -> Path:
        """Where results go."""
        return RunDirectory.of(self.checkpoint).evaluation

    def trained(self, averaged: Averaged, checkpoint: Path | None = None) -> TrainedModel:
        """The model of a checkpoint, read once for the check and for what follows."""
        file, root = checkpoint or self.checkpoint, self.data_root
        way = {"data_root": root, "data_changed": self.data_changed}
        return load_once(file, averaged=averaged, device=self.device, **way)

    def model_problems(self, averaged: Averaged, with_data: bool = True) -> Iterator[Problem]:
        """Whether the run's model can be read, and its data too."""
        try:
            trained = self.trained(averaged)
        except (ValueError, ConfigError) as error:
            yield Problem("run", str(error))
            return
        if not with_data:
            return
        if self.data_root is not None and "root" not in trained.config["data"]:
            yield Problem("data_root", "the run's data are not read from a folder: leave it out")
            return
        try:
            trained.source.check()
        except (FileNotFoundError, ValueError, ImportError, ConfigError) as error:
            yield Problem("data_root", str(error))

    def beside(self, about: dict[str, Any]) -> dict[str, Any]:
        """What results are named by: those on data that are not the run's stand apart."""
        return about | ({"data_changed": "accept"} if self.data_changed == "accept" else {})

    def write_rows(self, about: dict[str, Any], rows: list[dict[str, Any]]) -> list[Path]:
        """Write rows as CSV and JSON into the run, under a name of their own for each ``about``.

        What the rows depend on, ``about``, stands once in the JSON.
        """
        about = {"measure": self.name, "checkpoint": str(self.checkpoint), **self.beside(about)}
        words = (
            f"{key}-{about[key]}" for key in ("steps", "n", "seed") if about.get(key) is not None
        )
        path = telling(self.folder, [self.name, *words], digest(about, 8), ".json")
        return write(path, {**about, "rows": rows}, rows)
