"""The dashboards that ``conf/logger`` chooses from: each function gives the loggers of a run."""

import os
from pathlib import Path
from typing import Annotated, Literal

from lightning.pytorch.loggers import Logger
from pydantic import Field

from unnoise.training.logging.credentials import wandb_credentials
from unnoise.training.logging.tensorboard import TensorBoard
from unnoise.training.logging.wandb import WeightsAndBiases

Seconds = Annotated[float, Field(gt=0)]


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
