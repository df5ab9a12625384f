"""A run as a page of Weights & Biases."""

import logging
import netrc
import os
import sys
import tempfile
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlparse

from pydantic import Field

from unnoise.files import file_digest, write_durably
from unnoise.runs.layout import RunDirectory
from unnoise.training.logging.record import PATIENCE, Dashboard, within

AXIS = "trainer/global_step"
"""The optimizer step, on which Weights & Biases draws every chart."""
KILLED = 255
"""The exit code of an interrupted run, as Weights & Biases has it."""
ROOM = 2**20
"""Bytes that must be free for Weights & Biases, which does not say when it cannot write."""
NO_CREDENTIALS = (
    "Weights & Biases has no credentials here: run `wandb login`, or set WANDB_API_KEY, or use "
    "logger.mode=offline"
)
Seconds = Annotated[float, Field(gt=0)]


def wandb_credentials() -> bool:
    """Whether there is a key in WANDB_API_KEY or in the netrc file."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    base = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
    try:
        logins = netrc.netrc(os.environ.get("NETRC"))
    except (FileNotFoundError, netrc.NetrcParseError):
        return False
    return logins.authenticators(urlparse(base).hostname or "") is not None


@dataclass(eq=False)
class WeightsAndBiases(Dashboard):
    """A run of Weights & Biases, whose id is kept in ``<run>/wandb_id``: a resumed run goes on.

    Steps of the history are optimizer steps. Steps of a killed run that the server already has are
    not sent again. Offline, each start writes a folder of its own in ``<run>/wandb``, and
    ``wandb sync`` joins them under the id, in their order. What a killed run wrote after its last
    checkpoint then appears twice, with the same step.

    Args:
        run_dir: the run directory.
        title: start of the run's name.
        project: where the run is filed, for the user or team ``entity``.
        mode: offline needs no network.
        group: of runs; None is the sweep, for a job of one.
        artifact: "checkpoint" uploads the last checkpoint with config and manifest at the end.
        system_metrics: record the use of processor, memory and GPU.
        init_timeout: seconds to wait for the server at the start.
        finish_timeout: seconds to wait for uploads at the end; what is left stays on disk.

    Raises:
        ValueError: mode is online and there are no credentials (nothing ever prompts).
    """

    run_dir: Path
    title: str
    project: str = "unnoise"
    entity: str | None = None
    mode: Literal["online", "offline"] = "online"
    group: str | None = None
    tags: list[str] | None = None
    notes: str | None = None
    artifact: Literal["checkpoint"] | None = None
    system_metrics: bool = True
    init_timeout: Seconds = 20
    finish_timeout: Seconds = 600

    def __post_init__(self) -> None:
        if self.mode == "online" and not wandb_credentials():
            raise ValueError(NO_CREDENTIALS)
        self.remedy = f"; unnoise-replay {self.run_dir} sends it later"

    def begin(self, config: dict[str, Any], manifest: dict[str, Any], step: int) -> None:
        """Open the run, with the config and, under ``manifest``, the manifest."""
        import wandb

        id_file = RunDirectory(self.run_dir).wandb_id
        if not id_file.exists():
            write_durably(
                id_file,
                lambda temporary: temporary.write_text(uuid.uuid4().hex[:8], encoding="utf-8"),
            )
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
            wandb.setup(wandb.Settings(silent=True))  # else it prints where credentials came from
            return wandb.init(
                project=self.project,
                entity=self.entity,
                mode="offline" if self.mode == "offline" else None,  # None lets WANDB_MODE speak
                id=id_file.read_text(encoding="utf-8"),
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

    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        """Add a row to the history."""
        if step is None or step >= self._run.starting_step:
            _require_room(Path(self._run.dir))
            within(PATIENCE, lambda: self._run.log({**metrics, AXIS: step}, step=step))

    def show(self, name: str, picture: Path, caption: str, step: int) -> None:
        """Show a picture, or a GIF as a video."""
        import wandb

        kind = wandb.Video if picture.suffix == ".gif" else wandb.Image
        self.log_metrics({name: kind(str(picture), caption=caption)}, step)

    def alert(self, title: str, text: str, step: int) -> None:
        """Send an alert, which the server mails to who wants it."""
        within(PATIENCE, lambda: self._run.alert(title, text, level="WARN"))

    def end(self, manifest: dict[str, Any]) -> None:
        """Send the summary, and the artifact if the run finished."""
        status = 0 if "finished" in manifest else 1 if "failed" in manifest else KILLED
        _require_room(Path(self._run.dir))

        def send() -> None:
            try:
                for key in {"seconds", "steps", "peak_memory_mb"} & manifest.keys():
                    self._run.summary[f"run/{key}"] = manifest[key]
                if self.artifact is not None and status == 0:
                    self._upload(manifest["steps"])
            finally:
                self._run.finish(exit_code=status)

        within(self.finish_timeout + PATIENCE, send)
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

        with suppress(Exception):  # the process may be gone
            within(PATIENCE, kill)

    def _upload(self, step: int) -> None:
        import wandb

        files = RunDirectory(self.run_dir)
        (last,) = files.saved()[-1:]
        about = {"step": step, "digest": {last.name: file_digest(last)}}
        artifact = wandb.Artifact(f"checkpoint-{self._run.id}", type="model", metadata=about)
        for path in filter(Path.exists, (last, files.config, files.manifest)):
            artifact.add_file(str(path), name=str(path.relative_to(self.run_dir)))
        self._run.log_artifact(artifact, aliases=["latest", f"step-{step}"])


def _require_room(folder: Path) -> None:
    """Raise what a write into a folder raises where there is no space; that is all it leaves."""
    with tempfile.TemporaryFile(dir=folder) as probe:
        probe.write(bytes(ROOM))
