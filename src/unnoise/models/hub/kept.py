"""A model from elsewhere as the run directory of a run that has ended."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml  # type: ignore[import-untyped]

from unnoise.files import write_text, write_with_digest
from unnoise.models.base import GenerativeModel
from unnoise.models.build import named
from unnoise.runs.checkpoints import LAYOUT
from unnoise.runs.layout import RunDirectory
from unnoise.runs.manifest import TIME

HANDED = ("shape", "outputs", "condition", "colours")
"""Arguments of networks that are no keys of a config: they follow from others."""


def keep(
    run: Path, model: GenerativeModel, config: dict[str, Any], network: dict[str, Any],
    about: Mapping[str, Any],
) -> None:  # fmt: skip
    """Write config, manifest and a checkpoint of step 0, whose average is its weights.

    ``network`` is its node with all that it is handed; ``about`` is for the manifest.
    """
    files, weights = RunDirectory(run), model.state_dict()
    content = {
        "config": config | {"network": network},
        "state_dict": {
            f"{of}{k}": v for of in ("model.", "ema.model.") for k, v in weights.items()
        },
        "model": named(model),
        "layout": LAYOUT,
        "data": {},
    }
    write_with_digest(files.checkpoint(0), lambda path: torch.save(content, path))
    now = time.strftime(TIME)
    numbers = sum(parameter.numel() for parameter in model.network.parameters())
    manifest = {"name": config["name"], "imported": dict(about), "parameters": numbers,
                "started": now, "finished": now, "steps": 0}  # fmt: skip
    texts = {
        files.config: yaml.safe_dump(config, sort_keys=False, allow_unicode=True),
        files.manifest: json.dumps(manifest, indent=2) + "\n",
        files.metrics: "",
    }
    for file, text in texts.items():
        write_text(file, text)
