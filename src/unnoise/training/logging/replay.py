"""Sending to Weights & Biases what a run directory holds, after the run."""

import json
import math
import uuid
from pathlib import Path
from typing import Any

from unnoise.files import write_text
from unnoise.runs.layout import RunDirectory, step_of
from unnoise.runs.lock import held
from unnoise.training.logging.jsonl import JsonLines
from unnoise.training.logging.wandb import WeightsAndBiases
from unnoise.untrusted import load_yaml

KEPT = ("project", "entity", "group", "tags", "notes", "artifact", "init_timeout")
"""What is kept of the run's own logger, if that was Weights & Biases."""


def send(
    run_dir: Path, offline: bool = False, new: bool = False, project: str | None = None
) -> int:
    """``replay`` a run, which no other process may train meanwhile, to the page of its config.

    ``offline`` writes for ``wandb sync``; ``new`` makes a new page, whose id the run keeps;
    ``project`` replaces the config's.

    Raises:
        ValueError: there are no credentials; and what ``replay`` raises.
    """
    files = RunDirectory(run_dir)
    with held(run_dir):
        config = load_yaml(files.config) if files.config.exists() else {}
        logger = config.get("logger", {})
        own = logger.get("_target_", "").endswith(".WeightsAndBiases")
        options: dict[str, Any] = {key: logger[key] for key in KEPT if own and key in logger}
        options |= {"project": project} if project else {}
        options["mode"] = "offline" if offline else "online"
        board = WeightsAndBiases(run_dir, config.get("name", run_dir.name), **options)
        if new:
            name = uuid.uuid4().hex[:8]
            write_text(files.wandb_id, name)
        return replay(run_dir, board)


def replay(run_dir: Path, board: WeightsAndBiases) -> int:
    """Send config, manifest, every line of ``metrics.jsonl``, the pictures and how the run ended.

    Steps are those that were logged; a server's own of the run's id are not sent again. Captions
    say the step alone. Returns how many lines there were.

    Raises:
        FileNotFoundError: there is no ``metrics.jsonl``, or no ``manifest.json``.
        Exception: whatever keeps the dashboard from taking it; it is abandoned then.
    """
    files = RunDirectory(run_dir)
    files.metrics.stat()  # that it is there
    rows = JsonLines(files.metrics).rows()
    manifest = json.loads(files.manifest.read_text(encoding="utf-8"))
    config = load_yaml(files.config) if files.config.exists() else {}
    pictures = [each for each in _pictures(files) if each[2].exists()]
    try:
        board.begin(config, manifest, 0)
        for row in rows:
            step, _ = row.pop("step"), row.pop("time")
            while pictures and pictures[0][0] < step:
                _show(board, *pictures.pop(0))
            board.log_metrics({k: math.nan if v is None else v for k, v in row.items()}, step)
        for picture in pictures:
            _show(board, *picture)
        board.end(manifest)
    except Exception:
        board.abandon()
        raise
    return len(rows)


def _show(board: WeightsAndBiases, step: int, name: str, path: Path) -> None:
    board.show(name, path, f"step {step}", step)


def _pictures(files: RunDirectory) -> list[tuple[int, str, Path]]:
    """Step, name and file of what a run drew, by step; some may not be there."""
    grids = [(step_of(path), path) for path in files.grids()]
    last = grids[-1][0] if grids else 0
    return [
        (0, "forward_process", files.forward_process),
        *((step, "samples", path) for step, path in grids),
        (last, "denoising", files.denoising),
        (last, "training", files.training),
    ]
