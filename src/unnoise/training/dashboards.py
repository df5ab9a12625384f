"""TensorBoard and Weights & Biases: pages on which a run can be watched."""

import json
import logging
import sys
import tempfile
import uuid
from abc import ABC, abstractmethod
from argparse import Namespace
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any, Literal, TypeVar

import numpy as np
from lightning.pytorch.loggers import Logger
from PIL import Image

from unnoise.files import file_digest, write_durably
from unnoise.training.saved import checkpoints

AXIS = "trainer/global_step"
"""The optimizer step, on which Weights & Biases draws every chart."""
KILLED = 255
"""The exit code by which Weights & Biases tells an interrupted run from a failed one."""
PATIENCE = 20.0
"""Seconds that training waits for a dashboard to take something, before it goes on without."""
ROOM = 2**20
"""Bytes that must be free for Weights & Biases, which does not say when it cannot write."""
T = TypeVar("T")


class Dashboard(Logger, ABC):
    """Opens with a run, is told of what is logged, and ends with it. Only rank 0 calls it.

    ``manifest`` is what ``manifest.json`` says. Whatever goes wrong is raised: the run goes on
    without the dashboard, as ``loggers`` sees to. No call takes much longer than PATIENCE, but for
    the first and the last, whose limits the dashboard's own arguments are. ``remedy`` is what is
    said where it failed.
    """

    remedy = ""

    @property
    def name(self) -> str:
        """As Lightning wants one."""
        return type(self).__name__

    @property
    def version(self) -> str:
        """As Lightning wants one."""
        return ""

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any) -> None:
        """``begin`` is given the config."""

    @abstractmethod
    def begin(self, config: dict[str, Any], manifest: dict[str, Any], step: int) -> None:
        """Open the page of a run that stands at ``step``."""

    @abstractmethod
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add a point to the curve of each metric."""

    @abstractmethod
    def show(self, name: str, picture: Path, caption: str, step: int) -> None:
        """Show a PNG or an animated GIF."""

    @abstractmethod
    def alert(self, title: str, text: str, step: int) -> None:
        """Show what a person should look at."""

    @abstractmethod
    def end(self, manifest: dict[str, Any]) -> None:
        """Hand in what is still to come, and close the page."""

    @abstractmethod
    def abandon(self) -> None:
        """Leave nothing behind of a dashboard that failed that could hold up the process."""


class TensorBoard(Dashboard):
    """Event files in ``<run>/tensorboard``; a resumed run drops the events after its checkpoint.

    Config and manifest are texts. Animations and captions are left out.
    """

    def __init__(self, run_dir: Path) -> None:
        super().__init__()
        self.run_dir = run_dir

    def begin(self, config: dict[str, Any], manifest: dict[str, Any], step: int) -> None:
        """Open the files."""
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(self.run_dir / "tensorboard", purge_step=step + 1)
        for name, content in {"config": config, "manifest": manifest}.items():
            text = json.dumps(content, indent=2, default=str)
            self._writer.add_text(name, f"```json\n{text}\n```", step)

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add scalars."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def show(self, name: str, picture: Path, caption: str, step: int) -> None:
        """Add a PNG."""
        if picture.suffix == ".png":
            pixels = np.asarray(Image.open(picture).convert("RGB"))
            self._writer.add_image(name, pixels, step, dataformats="HWC")

    def alert(self, title: str, text: str, step: int) -> None:
        """Add a text."""
        self._writer.add_text("alert", f"{title}: {text}", step)

    def end(self, manifest: dict[str, Any]) -> None:
        """Close the files."""
        self._writer.close()

    def abandon(self) -> None:
        """The files are all there is."""


class WeightsAndBiases(Dashboard):
    """A run of Weights & Biases, whose id is kept in ``<run>/wandb_id``: a resumed run goes on.

    Steps of the history are optimizer steps. What a server has already of a killed run's steps is
    not sent again. Offline each start leaves a folder of its own in ``<run>/wandb``, which
    ``wandb sync`` puts together under the id, in their order; what a killed run wrote after its
    last checkpoint then stands there twice, with the same step.

    Args:
        run_dir: the run directory.
        name: what the run's title begins with.
        project: where the run is filed.
        entity: user or team; None is the account's default.
        mode: offline needs no network.
        group: of runs; None is the sweep, for a job of one.
        tags: to filter by.
        notes: shown with the run.
        artifact: what of a finished run is handed in: "checkpoint" is the last checkpoint with
            config and manifest; "run" is the run directory without ``wandb`` and
            ``evaluation/drawn``.
        system_metrics: record the use of processor, memory and GPU.
        init_timeout: seconds to wait for the server at the start.
        finish_timeout: seconds to wait for uploads at the end; what is left stays on disk.
    """

    def __init__(
        self,
        run_dir: Path,
        name: str,
        *,
        project: str,
        entity: str | None,
        mode: Literal["online", "offline"],
        group: str | None,
        tags: list[str] | None,
        notes: str | None,
        artifact: Literal["checkpoint", "run"] | None,
        system_metrics: bool,
        init_timeout: float,
        finish_timeout: float,
    ) -> None:
        super().__init__()
        self.run_dir, self.title, self.project, self.entity = run_dir, name, project, entity
        self.mode, self.group, self.tags, self.notes = mode, group, tags, notes
        self.artifact, self.system_metrics = artifact, system_metrics
        self.init_timeout, self.finish_timeout = init_timeout, finish_timeout
        self.remedy = f"; unnoise-replay {run_dir} sends it later"

    def begin(self, config: dict[str, Any], manifest: dict[str, Any], step: int) -> None:
        """Open the run, with the config and, under ``manifest``, the manifest."""
        import wandb

        id_file = self.run_dir / "wandb_id"
        if not id_file.exists():
            write_durably(id_file, lambda temporary: temporary.write_text(uuid.uuid4().hex[:8]))
        facts = {**manifest, "directory": str(self.run_dir.resolve())}
        typed = " ".join(manifest["overrides"]) or self.run_dir.name
        settings = wandb.Settings(
            init_timeout=self.init_timeout,
            finish_timeout=self.finish_timeout,
            finish_timeout_raises=True,
            x_disable_stats=not self.system_metrics,
            silent=True,
        )

        logging.raiseExceptions = False  # wandb's log file on a full disk would fill stderr

        def open_run() -> Any:
            wandb.setup(wandb.Settings(silent=True))  # else it tells of credentials
            return wandb.init(
                project=self.project,
                entity=self.entity,
                mode="offline" if self.mode == "offline" else None,  # None lets WANDB_MODE speak
                id=id_file.read_text(),
                resume="allow",
                reinit="create_new",
                dir=self.run_dir,
                name=f"{self.title} {typed}"[:100],
                group=self.group or manifest["sweep"],
                job_type="train",
                config={**config, "manifest": facts},
                allow_val_change=True,
                tags=self.tags or None,
                notes=self.notes,
                settings=settings,
            )

        self._run = within(self.init_timeout, open_run)
        self._run.define_metric(AXIS, hidden=True)
        self._run.define_metric("*", step_metric=AXIS, step_sync=True)
        if not self._run.offline:
            print(f"Weights & Biases: {self._run.url}", file=sys.stderr)

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add a row to the history."""
        self._log(metrics, step)

    def show(self, name: str, picture: Path, caption: str, step: int) -> None:
        """Show a picture, or a GIF as a video."""
        import wandb

        kind = wandb.Video if picture.suffix == ".gif" else wandb.Image
        self._log({name: kind(str(picture), caption=caption)}, step)

    def _log(self, row: dict[str, Any], step: int | None) -> None:
        if step is None or step >= self._run.starting_step:
            _require_room(Path(self._run.dir))
            within(PATIENCE, lambda: self._run.log({**row, AXIS: step}, step=step))

    def alert(self, title: str, text: str, step: int) -> None:
        """Send an alert, which the server mails to who wants it."""
        within(PATIENCE, lambda: self._run.alert(title, text, level="WARN"))

    def end(self, manifest: dict[str, Any]) -> None:
        """Hand in what the run took, and the artifact if it finished."""
        status = 0 if "finished" in manifest else 1 if "failed" in manifest else KILLED
        _require_room(Path(self._run.dir))

        def hand_in() -> None:
            try:
                for key in {"seconds", "steps", "peak_memory_mb"} & manifest.keys():
                    self._run.summary[f"run/{key}"] = manifest[key]
                if self.artifact is not None and status == 0:
                    self._hand_in(self.artifact, manifest["steps"])
            finally:
                self._run.finish(exit_code=status)

        within(self.finish_timeout + PATIENCE, hand_in)
        if self._run.offline:
            folder = Path(self._run.dir).parent
            print(f"Weights & Biases: wandb sync {folder} sends the run", file=sys.stderr)

    def abandon(self) -> None:
        """End wandb's own process, for which this one would wait at its end, come what may."""
        import wandb

        def kill() -> None:
            connection = wandb.setup()._connection
            if connection is not None and connection._proc is not None:
                connection._proc._process.kill()
                connection._proc._process.wait()
            wandb.teardown()

        with suppress(Exception):  # nobody is there to take leave of
            within(PATIENCE, kill)

    def _hand_in(self, what: Literal["checkpoint", "run"], step: int) -> None:
        import wandb

        last = checkpoints(self.run_dir)[-1:]
        artifact = wandb.Artifact(
            f"{what}-{self._run.id}",
            type={"checkpoint": "model", "run": "run"}[what],
            metadata={"step": step, "digest": {path.name: file_digest(path) for path in last}},
        )
        described = (self.run_dir / "config.yaml", self.run_dir / "manifest.json")
        small = [*last, *filter(Path.exists, described)]
        for path in small if what == "checkpoint" else _files(self.run_dir):
            artifact.add_file(str(path), name=str(path.relative_to(self.run_dir)))
        self._run.log_artifact(artifact, aliases=["latest", f"step-{step}"])


def _files(run_dir: Path) -> Iterator[Path]:
    """What a run directory holds, but for what Weights & Biases has and what can be drawn again."""
    left_out = (run_dir / "wandb", run_dir / "evaluation" / "drawn")
    for path in sorted(run_dir.rglob("*")):
        hidden = path.name.startswith(".")  # the lock, and what a kill left half-written
        if path.is_file() and not hidden and not any(map(path.is_relative_to, left_out)):
            yield path


def _require_room(folder: Path) -> None:
    """Raise what a write into a folder raises where there is no space; that is all it leaves."""
    with tempfile.TemporaryFile(dir=folder) as probe:
        probe.write(bytes(ROOM))


def within(seconds: float, act: Callable[[], T]) -> T:
    """What ``act`` returns; it is done in a thread, which is left to itself if it hangs.

    Raises:
        TimeoutError: ``act`` took longer than that.
        Exception: whatever ``act`` raises.
    """
    outcome: Future[T] = Future()

    def work() -> None:
        try:
            outcome.set_result(act())
        except Exception as error:
            outcome.set_exception(error)
        except BaseException as error:  # a library's sys.exit must not end the process
            outcome.set_exception(RuntimeError(repr(error)))

    Thread(target=work, daemon=True).start()
    try:
        return outcome.result(seconds)
    except TimeoutError as error:
        raise TimeoutError(str(error) or f"no answer within {seconds:g} s") from error
