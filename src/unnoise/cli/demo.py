"""unnoise-demo: a page to draw from trained models, on this machine."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from unnoise.api import Model, load
from unnoise.cli.demo_jobs import prepare, samplers
from unnoise.cli.request import Request, run_request
from unnoise.config.faults import Device, Look, run_fault
from unnoise.config.problems import Problem
from unnoise.demo.desk import Desk
from unnoise.demo.served import Served, free, quiet
from unnoise.models.trained import DataChanged
from unnoise.runs.layout import RunDirectory, shown

MISSING = "needs gradio: pip install 'unnoise[demo]'"
MOST = 6  # runs


def runs_fault(run: str | list[str]) -> str | None:
    """Why not all runs can be drawn from."""
    runs = [run] if isinstance(run, str) else run
    if not 1 <= len(runs) <= MOST:
        return f"must be 1 to {MOST} runs, not {len(runs)}"
    return next(filter(None, map(run_fault, runs)), None)


@dataclass(frozen=True, kw_only=True)
class Demo(Request):
    """What the page is of: one field for each key of ``conf/demo.yaml``."""

    run: Annotated[str | list[str], Look(runs_fault)]
    port: Annotated[int, Field(ge=0, le=65535)]
    averaged: bool
    device: Device
    data_root: str | None
    data_changed: DataChanged

    def problems(self) -> Iterator[Problem]:
        """Whether there is what serves the page, and a port for it."""
        if find_spec("gradio") is None:
            yield Problem("unnoise-demo", MISSING)
        try:
            free(self.port)
        except OSError as error:
            yield Problem("port", f"{self.port}: {error.strerror}; port=0 takes any that is free")

    def answer(self, config: dict[str, Any]) -> None:
        """Serve until Ctrl-C."""
        keys = "averaged", "device", "data_root", "data_changed"
        options = {key: getattr(self, key) for key in keys}
        runs = [self.run] if isinstance(self.run, str) else self.run
        models = [load(run, **options) for run in runs]
        with tempfile.TemporaryDirectory(prefix="unnoise_demo_") as folder:
            quiet(Path(folder))
            desk = Desk(models, list(map(_title, models)), samplers(), prepare, Path(folder))
            served = Served(desk, self.port)
            print(f"{served.address}  until Ctrl-C", flush=True)
            served.wait()
            served.close()


def _title(model: Model) -> str:
    run = RunDirectory.of(model.checkpoint).path
    return f"{model.config.get('name') or 'run'} ({shown(run.resolve())})"


def main() -> None:
    """The command's entry point."""
    run_request("demo", Demo)
