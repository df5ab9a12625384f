"""Sending to Weights & Biases what a run directory holds, after the run."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unnoise.training.logging.wandb import WeightsAndBiases
from unnoise.untrusted import load_yaml


def replay(run_dir: Path, board: WeightsAndBiases) -> int:
    """Send config, manifest, every line of ``metrics.jsonl``, the pictures and how the run ended.

    Steps are those that were logged; a server's own of the run's id are not sent again. Captions
    say the step alone.

    Returns:
        How many lines there were.

    Raises:
        FileNotFoundError: there is no ``metrics.jsonl``, or no ``manifest.json``.
        Exception: whatever keeps the dashboard from taking it; it is abandoned then.
    """
    rows, shown = list(_rows(run_dir)), _pictures(run_dir)
    manifest = json.loads((run_dir / "manifest.json").read_text())
    described = run_dir / "config.yaml"
    config = load_yaml(described) if described.exists() else {}
    pictures = [(step, name, path) for step, name, path in shown if path.exists()]
    try:
        board.begin(config, manifest, 0)
        for step, metrics in rows:
            while pictures and pictures[0][0] < step:
                _show(board, *pictures.pop(0))
            board.log_metrics(metrics, step)
        for picture in pictures:
            _show(board, *picture)
        board.end(manifest)
    except Exception:
        board.abandon()
        raise
    return len(rows)


def _show(board: WeightsAndBiases, step: int, name: str, path: Path) -> None:
    board.show(name, path, f"step {step}", step)


def _rows(run_dir: Path) -> Iterator[tuple[int, dict[str, float]]]:
    """Step and metrics of each whole line; what was not finite is nan."""
    for line in (run_dir / "metrics.jsonl").read_text().splitlines(keepends=True):
        if line.endswith("\n"):
            row: dict[str, Any] = json.loads(line)
            step = row.pop("step")
            del row["time"]
            yield step, {name: math.nan if v is None else v for name, v in row.items()}


def _pictures(run_dir: Path) -> list[tuple[int, str, Path]]:
    """Step, name and file of what a run drew, by step; some may not be there."""
    folder = run_dir / "samples"
    grids = [(int(path.stem[5:]), path) for path in sorted(folder.glob("step_*.png"))]
    last = grids[-1][0] if grids else 0
    return [
        (0, "forward_process", folder / "forward_process.png"),
        *((step, "samples", path) for step, path in grids),
        (last, "denoising", folder / "denoising.gif"),
    ]
