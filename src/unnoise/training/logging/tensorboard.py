"""A run in TensorBoard."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unnoise.runs.layout import RunDirectory
from unnoise.training.logging.record import Dashboard


@dataclass(eq=False)
class TensorBoard(Dashboard):
    """Event files in ``<run>/tensorboard``; a resumed run drops the events after its checkpoint.

    Config and manifest are texts. Animations and captions are left out.
    """

    run_dir: Path
    title: str

    def begin(self, config: dict[str, Any], manifest: dict[str, Any], step: int) -> None:
        """Open the files."""
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(RunDirectory(self.run_dir).tensorboard, purge_step=step + 1)
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
