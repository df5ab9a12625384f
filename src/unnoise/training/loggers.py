"""Where metrics and pictures go: always ``metrics.jsonl``, and a dashboard if one is asked for.

A ``conf/logger`` file names one of the functions below; each gives the dashboard's loggers for a
run directory.
"""

import errno
import json
import math
import netrc
import os
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlparse

from lightning import Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from pydantic import Field
from tqdm import tqdm

from unnoise.files import write_durably
from unnoise.training.dashboards import Dashboard, TensorBoard
from unnoise.training.manifest import Manifest
from unnoise.training.weights_and_biases import WeightsAndBiases

Seconds = Annotated[float, Field(gt=0)]


class JsonLines(Logger):
    """``metrics.jsonl``: one line {"step", "time", metric: value, …} each time metrics are logged.

    A value that is not finite is null. Lines are flushed as they are written, each whole or not at
    all: on a full disk they wait in ``unwritten`` until there is space. A run that resumes at step
    k drops the lines after k, which it is about to write again. ``latest`` is the last value of
    each metric.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.latest: dict[str, float] = {}
        self.unwritten: list[str] = []
        self._said = False

    @property
    def name(self) -> str:
        """As Lightning wants one."""
        return "jsonl"

    @property
    def version(self) -> str:
        """As Lightning wants one."""
        return ""

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any) -> None:
        """The run directory holds the config already."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append a line."""
        self.latest |= metrics
        told = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        row = {"step": step, "time": round(time.time(), 3), **told}
        self.unwritten.append(json.dumps(row) + "\n")
        self.write()

    @rank_zero_only
    def write(self) -> None:
        """Write what there was no space for, if there is now; that there is none is said once."""
        try:
            while self.unwritten:
                _append_whole(self.path, self.unwritten[0].encode())
                del self.unwritten[0]
            self._said = False
        except OSError as error:
            if not self._said:
                self._said = True
                say(
                    f"{self.path} cannot be written ({error.strerror}): lines are kept in memory "
                    "until it can, and training goes on"
                )

    @rank_zero_only
    def rewind(self, step: int) -> None:
        """Drop what was logged after ``step``, and a last line cut short by a kill."""
        if not self.path.exists():
            return
        lines = self.path.read_text().splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
        write_durably(self.path, lambda temporary: temporary.write_text("".join(kept)))

    def rows(self) -> list[dict[str, Any]]:
        """What was logged, also what still waits for space; not a line that was cut short."""
        lines = self.path.read_text().splitlines(keepends=True) if self.path.exists() else []
        return [json.loads(line) for line in lines + self.unwritten if line.endswith("\n")]

    def times(self) -> list[float]:
        """When each line was logged, in seconds since the epoch."""
        return [row["time"] for row in self.rows()]


def _append_whole(path: Path, line: bytes) -> None:
    """Append a line, or raise OSError and leave the file as it was."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        before = os.fstat(descriptor).st_size
        try:
            if os.write(descriptor, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            os.ftruncate(descriptor, before)
            raise
    finally:
        os.close(descriptor)


def none(run_dir: Path, name: str) -> list[Logger]:
    """No dashboard."""
    return []


def tensorboard(run_dir: Path, name: str) -> list[Logger]:
    """TensorBoard files in ``<run>/tensorboard``: tensorboard --logdir outputs."""
    return [TensorBoard(run_dir)]


def wandb(
    run_dir: Path,
    name: str,
    project: str = "unnoise",
    entity: str | None = None,
    mode: Literal["online", "offline"] = "online",
    group: str | None = None,
    tags: list[str] | None = None,
    notes: str | None = None,
    artifact: Literal["checkpoint", "run"] | None = None,
    system_metrics: bool = True,
    init_timeout: Seconds = 20,
    finish_timeout: Seconds = 600,
) -> list[Logger]:
    """Weights & Biases; ``WeightsAndBiases`` says what the arguments are.

    Raises:
        ValueError: mode is online and there are no credentials (nothing ever prompts).
    """
    if mode == "online" and not wandb_credentials():
        raise ValueError(
            "Weights & Biases has no credentials here: run `wandb login`, or set WANDB_API_KEY, "
            "or use logger.mode=offline"
        )
    dashboard = WeightsAndBiases(
        run_dir,
        name,
        project=project,
        entity=entity,
        mode=mode,
        group=group,
        tags=tags,
        notes=notes,
        artifact=artifact,
        system_metrics=system_metrics,
        init_timeout=init_timeout,
        finish_timeout=finish_timeout,
    )
    return [dashboard]


def auto(run_dir: Path, name: str) -> list[Logger]:
    """Weights & Biases where its credentials are present, else TensorBoard."""
    if os.environ.get("WANDB_MODE") == "offline":
        return wandb(run_dir, name, mode="offline")
    return wandb(run_dir, name) if wandb_credentials() else tensorboard(run_dir, name)


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


def begin(trainer: Trainer, config: dict[str, Any], manifest: Manifest, step: int) -> None:
    """Open each dashboard's page of a run that stands at ``step``; say what the data lacks."""
    for each in manifest["data"]["quarantined"]:
        say(each)

    def open_page(logger: Logger) -> None:
        if isinstance(logger, Dashboard):
            logger.begin(config, manifest, step)
        else:
            logger.log_hyperparams(config)

    _on_each(trainer, open_page)


def log_metrics(trainer: Trainer, metrics: dict[str, float]) -> None:
    """Write metrics to every logger at the trainer's optimizer step."""
    step = trainer.global_step
    _on_each(trainer, lambda logger: logger.log_metrics(metrics, step))


def log_picture(trainer: Trainer, name: str, path: Path, caption: str | None = None) -> None:
    """Show a picture file (PNG or GIF) on each dashboard, with the step before its caption."""
    step = trainer.global_step
    told = f"step {step}" + (f", {caption}" if caption else "")

    def show(logger: Logger) -> None:
        if isinstance(logger, Dashboard):
            logger.show(name, path, told, step)

    _on_each(trainer, show)


def alert(trainer: Trainer, title: str, text: str) -> None:
    """Tell a person at once, on stderr and on each dashboard; rank 0 does."""
    if not trainer.is_global_zero:
        return
    say(f"{title}: {text}")
    step = trainer.global_step

    def show(logger: Logger) -> None:
        if isinstance(logger, Dashboard):
            logger.alert(title, text, step)

    _on_each(trainer, show)


def end(trainer: Trainer, manifest: Manifest) -> None:
    """Close each dashboard's page, so that the next job of a process opens its own."""

    def close_page(logger: Logger) -> None:
        if isinstance(logger, Dashboard):
            logger.end(manifest)
        elif isinstance(logger, JsonLines):
            logger.write()
            if logger.unwritten:
                say(f"{len(logger.unwritten)} lines of {logger.path} are lost: there is no space")

    _on_each(trainer, close_page)


def say(text: str) -> None:
    """A line on stderr, above the progress bar."""
    tqdm.write(f"warning: {text}", file=sys.stderr)


def _on_each(trainer: Trainer, act: Callable[[Logger], None]) -> None:
    """Act on every logger; a dashboard that fails is said once and left, the run goes on."""
    for logger in list(trainer.loggers) if trainer.is_global_zero else []:
        try:
            act(logger)
        except Exception as error:
            if isinstance(logger, JsonLines):
                raise
            trainer.loggers = [other for other in trainer.loggers if other is not logger]
            told = " ".join(str(error).split()) or type(error).__name__
            remedy = ""
            if isinstance(logger, Dashboard):
                logger.abandon()
                remedy = logger.remedy
            say(
                f"{type(logger).__name__} failed ({told}) and is left out from step "
                f"{trainer.global_step} on; metrics.jsonl goes on{remedy}"
            )
