"""Where metrics and pictures go: always ``metrics.jsonl``, and a dashboard if one is asked for.

A ``conf/logger`` file names one of the functions below; each gives the dashboard's loggers for a
run directory.
"""

import json
import netrc
import os
import time
import uuid
import warnings
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlparse

import numpy as np
from lightning import Trainer
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from PIL import Image

from unnoise.files import write_durably


class JsonLines(Logger):
    """``metrics.jsonl``: one line {"step", "time", metric: value, …} each time metrics are logged.

    Lines are flushed as they are written. A run that resumes at step k drops the lines after k,
    which it is about to write again. ``latest`` is the last value of each metric.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.latest: dict[str, float] = {}

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
        row = {"step": step, "time": round(time.time(), 3), **metrics}
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")

    @rank_zero_only
    def rewind(self, step: int) -> None:
        """Drop what was logged after ``step``, and a last line cut short by a kill."""
        if not self.path.exists():
            return
        lines = self.path.read_text().splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
        write_durably(self.path, lambda temporary: temporary.write_text("".join(kept)))


def none(run_dir: Path, name: str) -> list[Logger]:
    """No dashboard."""
    return []


def tensorboard(run_dir: Path, name: str) -> list[Logger]:
    """TensorBoard files in ``<run>/tensorboard``: tensorboard --logdir outputs."""
    return [TensorBoardLogger(save_dir=run_dir, name="tensorboard", version="")]


def wandb(
    run_dir: Path,
    name: str,
    project: str = "unnoise",
    entity: str | None = None,
    mode: Literal["online", "offline"] = "online",
    group: str | None = None,
    tags: list[str] | None = None,
) -> list[Logger]:
    """Weights & Biases. The run's id is kept in ``<run>/wandb_id``, so that resuming continues it.

    Raises:
        ValueError: mode is online and there are no credentials (nothing ever prompts).
    """
    if mode == "online" and not wandb_credentials():
        raise ValueError(
            "Weights & Biases has no credentials here: run `wandb login`, or set WANDB_API_KEY, "
            "or use logger.mode=offline"
        )
    id_file = run_dir / "wandb_id"
    if not id_file.exists():
        write_durably(id_file, lambda temporary: temporary.write_text(uuid.uuid4().hex[:8]))
    logger = WandbLogger(
        project=project,
        entity=entity,
        name=f"{name} {run_dir.name}",
        id=id_file.read_text(),
        resume="allow",
        save_dir=run_dir,
        offline=mode == "offline",
        group=group,
        tags=tags,
    )
    return [logger]


def auto(run_dir: Path, name: str) -> list[Logger]:
    """Weights & Biases where its credentials are present, else TensorBoard."""
    if os.environ.get("WANDB_MODE") == "offline":
        return wandb(run_dir, name, mode="offline")
    return wandb(run_dir, name) if wandb_credentials() else tensorboard(run_dir, name)


def close(dashboards: list[Logger]) -> None:
    """End each dashboard's run, so that the next job of a process starts its own."""
    for logger in dashboards:
        if isinstance(logger, WandbLogger):
            logger.experiment.finish()


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


def log_metrics(trainer: Trainer, metrics: dict[str, float]) -> None:
    """Write metrics to every logger at the trainer's optimizer step."""
    step = trainer.global_step
    _on_each(trainer, lambda logger: logger.log_metrics(metrics, step))


def log_picture(trainer: Trainer, name: str, path: Path) -> None:
    """Show a picture file (PNG or GIF) on each dashboard that can."""
    step = trainer.global_step

    def show(logger: Logger) -> None:
        if isinstance(logger, WandbLogger) and path.suffix == ".gif":
            logger.log_video(name, [str(path)], step, format=["gif"])
        elif isinstance(logger, WandbLogger):
            logger.log_image(name, [str(path)], step)
        elif isinstance(logger, TensorBoardLogger) and path.suffix == ".png":
            pixels = np.asarray(Image.open(path).convert("RGB"))
            logger.experiment.add_image(name, pixels, step, dataformats="HWC")

    _on_each(trainer, show)


def _on_each(trainer: Trainer, act: Callable[[Logger], None]) -> None:
    """Act on every logger; a dashboard that fails is said once and left, the run goes on."""
    for logger in list(trainer.loggers):
        try:
            act(logger)
        except Exception as error:
            if isinstance(logger, JsonLines):
                raise
            trainer.loggers = [other for other in trainer.loggers if other is not logger]
            warnings.warn(
                f"{type(logger).__name__} failed ({error}) and is left out from step "
                f"{trainer.global_step} on; metrics.jsonl goes on",
                stacklevel=2,
            )
