"""What the measures of unnoise-evaluate have in common: a run, its data, and where results go."""

import csv
import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from unnoise.cli.checks import device_problems, folder_problems, run_problems
from unnoise.config.nodes import DATA, instantiate
from unnoise.config.problems import ConfigError, Problem
from unnoise.data.source import ImageSource
from unnoise.files import write_durably
from unnoise.models.trained import TrainedModel, load
from unnoise.runs.checkpoints import find_checkpoint
from unnoise.runs.layout import RunDirectory

Count = Annotated[int, Field(ge=1)]
Number = Annotated[int, Field(ge=0)]
Scale = Annotated[float, Field(ge=0)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunRequest:
    """The keys of every measure of a run."""

    measure: str
    run: str
    data_root: str | None
    seed: Number
    batch_size: Count
    averaged: bool
    device: str

    def trained(self) -> TrainedModel:
        """The run's newest checkpoint, on the device."""
        return read_once(find_checkpoint(Path(self.run)), self.averaged, self.device)

    def source(self) -> ImageSource:
        """The run's data, from where they are now."""
        return run_data(self.trained().config, self.data_root)


@functools.lru_cache(maxsize=1)
def read_once(checkpoint: Path, averaged: bool, device: str) -> TrainedModel:
    """Read once, for the check and for what follows."""
    return load(checkpoint, averaged=averaged, device=device)


def run_data(config: dict[str, Any], root: str | None) -> ImageSource:
    """The data of a run's config, from ``root`` if it is given."""
    node = dict(config["data"]) | ({} if root is None else {"root": root})
    source: ImageSource = instantiate(node, DATA)
    return source


def evaluation_folder(checkpoint: Path) -> Path:
    """Where what is measured of a checkpoint goes."""
    return RunDirectory.of(checkpoint).evaluation


def place_problems(config: dict[str, Any], right: set[str]) -> list[Problem]:
    """Whether the run and the device are there, and results can be written."""
    found = []
    if "device" in right:
        found += device_problems(config["device"])
    if "run" in right and config["run"] is not None:
        missing = run_problems("run", config["run"])
        found += missing or folder_problems(
            "run", evaluation_folder(find_checkpoint(Path(config["run"])))
        )
    return found


def data_problems(config: dict[str, Any], root: str | None) -> Iterator[Problem]:
    """Whether a run's real pictures can be read, by the run's config."""
    if root is not None and "root" not in config["data"]:
        yield Problem("data_root", "the run's data are not read from a folder: leave it out")
        return
    try:
        run_data(config, root).check()
    except (FileNotFoundError, ValueError, ImportError, ConfigError) as error:
        yield Problem("data_root", str(error))


def digest(content: Any) -> str:
    """SHA-256 of plain containers, hex."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def write_rows(
    checkpoint: Path, measure: str, about: dict[str, Any], rows: list[dict[str, Any]]
) -> list[Path]:
    """The rows as CSV and JSON, under a name of their own for each request, in the run.

    What the rows depend on, ``about``, stands once in the JSON.
    """
    about = {"measure": measure, "checkpoint": str(checkpoint), **about}
    name = f"{measure}_{digest(about)[:8]}"
    whole = evaluation_folder(checkpoint) / f"{name}.json"
    text = json.dumps({**about, "rows": rows}, indent=2) + "\n"
    write_durably(whole, lambda path: path.write_text(text))
    return [write_csv(whole.with_suffix(".csv"), rows), whole]


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """A table with every key that any row has; a key that a row lacks is left empty there."""
    columns = list(dict.fromkeys(key for row in rows for key in row))

    def write(temporary: Path) -> None:
        with temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)

    write_durably(path, write)
    return path


def told(files: Sequence[Path]) -> str:
    """Where the results are, a line each."""
    return "\n".join(f"  {os.path.relpath(path)}" for path in files)
