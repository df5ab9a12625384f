"""Functions that ``conf/logger`` names: each gives the dashboard of a run, or none."""

import os
from pathlib import Path

from unnoise.training.logging.record import Dashboard
from unnoise.training.logging.tensorboard import TensorBoard
from unnoise.training.logging.wandb import WeightsAndBiases, wandb_credentials


def none(run_dir: Path, title: str) -> None:
    """No dashboard."""


def auto(run_dir: Path, title: str) -> Dashboard:
    """Weights & Biases where its credentials are present, else TensorBoard."""
    offline = os.environ.get("WANDB_MODE") == "offline"
    if offline or wandb_credentials():
        return WeightsAndBiases(run_dir, title, mode="offline" if offline else "online")
    return TensorBoard(run_dir, title)
