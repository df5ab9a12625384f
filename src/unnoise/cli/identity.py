"""Which run a configuration stands for: its digest, its directory, and what it may go on from."""

import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from unnoise.cli.config import Problem

OUTPUTS = Path("outputs")
VOLATILE = (
    *("hydra", "name", "resume", "trainer", "logger", "rank_timeout", "metric", "sweep"),
    *("workers", "accumulate", "validate_every", "validation_images"),
)
"""Keys that do not change what a run gives."""
DRAWING = ("sampler", "callbacks")
"""Keys that change what it draws and logs, but not what it trains: they do not hinder a resume."""
NAMELESS = ("hydra", "name", "resume", "logger", "rank_timeout", "metric", "sweep")
"""Keys that do not tell one run directory from another."""

STARTED = os.environ.setdefault("UNNOISE_STARTED", time.strftime("%Y-%m-%d_%H-%M-%S"))
"""When the command was started: the same in all processes that it starts, wherever they are."""


def resume_problems(config: dict[str, Any]) -> list[Problem]:
    """What keeps a certain run from going on under this config."""
    from unnoise.api import find_checkpoint
    from unnoise.safe import Refused, load_yaml

    run_dir = Path(config["resume"])
    try:
        find_checkpoint(run_dir)
        if not (run_dir / "config.yaml").is_file():
            raise FileNotFoundError(f"{run_dir} is not a run directory")
        before = load_yaml(run_dir / "config.yaml")
        then, now = (dict(_leaves(_fixed(c))) for c in (before, config))
    except (FileNotFoundError, Refused) as error:
        return [Problem("resume", str(error))]
    except (AttributeError, KeyError, TypeError):
        return [Problem("resume", f"{run_dir / 'config.yaml'} is not the config of a run")]
    why = {"max_steps": "; the learning rate was to fall to 0 there (lr_decay)"}
    return [
        Problem(
            key,
            f"is {now.get(key)!r}, but {run_dir} was trained with {then.get(key)!r}"
            + why.get(key, ""),
        )
        for key in sorted(then.keys() | now.keys())
        if then.get(key) != now.get(key)
        and not (key == "max_steps" and config["lr_decay"] == "constant")
    ]


def _fixed(config: dict[str, Any]) -> dict[str, Any]:
    """The part of a config that decides what is computed."""
    fixed = {key: value for key, value in config.items() if key not in (*VOLATILE, *DRAWING)}
    return fixed | {"data": {k: v for k, v in fixed["data"].items() if k != "root"}}


def _leaves(tree: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict):
        for name, value in tree.items():
            yield from _leaves(value, f"{key}.{name}" if key else str(name))
    else:
        yield key, tree


def run_directory(*, _root_: DictConfig) -> str:
    """``outputs/<name>/<time>_<digest>-<digest>``; when resuming, the newest such run there is.

    The first digest is of what decides what is trained, the second of what decides what is drawn,
    followed by one of the rest, so that each job of a sweep has a directory of its own. A run is
    resumed that agrees in all, or else in the first two, or else in the first.
    """
    if isinstance(_root_.resume, str):
        return _root_.resume
    config: Any = OmegaConf.to_container(_root_, resolve=False)
    home = OUTPUTS / _root_.name
    trained = _digest(_fixed(config))[:8]
    drawn = _digest({key: config[key] for key in DRAWING})[:4]
    rest = _digest({k: v for k, v in config.items() if k in VOLATILE and k not in NAMELESS})[:4]
    whole = f"{trained}-{drawn}{rest}"
    for digests in (whole, f"{trained}-{drawn}*", f"{trained}-*") if _root_.resume else ():
        if earlier := sorted(home.glob(f"*_{digests}/checkpoints/step_*.ckpt")):
            return str(earlier[-1].parents[1])
    return str(home / f"{STARTED}_{whole}")


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def sweep_directory(*, _root_: DictConfig) -> str:
    """The run directory of a sweep's job, below Hydra's sweep directory."""
    return os.path.relpath(run_directory(_root_=_root_), OUTPUTS)


OmegaConf.register_new_resolver("run_directory", run_directory, replace=True)
OmegaConf.register_new_resolver("sweep_directory", sweep_directory, replace=True)
