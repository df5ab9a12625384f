"""Which run a configuration stands for: its digest, its directory, and what it may go on from."""

import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from unnoise.config.problems import Problem
from unnoise.distributed.environment import requeued
from unnoise.runs.layout import RunDirectory

OUTPUTS = Path("outputs")
NAMELESS = (
    *("hydra", "name", "resume", "trainer", "logger", "workers", "rank_timeout"),
    *("metric", "sweep"),
)
"""Keys that do not tell one run from another."""
VOLATILE = (*NAMELESS, "accumulate", "validate_every", "validation_images")
"""Keys that do not change what a run gives, but for rounding and for what is logged."""
DRAWING = ("sampler", "callbacks")
"""Keys that change what it draws and logs, but not what it trains: they do not hinder a resume."""
DOWNLOADED = ("unnoise.data.classics.", "unnoise.data.cifar.")
"""Data that is the same wherever it lies; of all other the folder says what it is."""

SWEEP, START = "UNNOISE_SWEEP", "UNNOISE_STARTED"
"""Where in the environment a sweep tells its digest and its start to its jobs."""
STARTED = os.environ.get(START, time.strftime("%Y-%m-%d_%H-%M-%S"))
"""When the command was started, or the sweep of which it runs jobs."""


def resume_problems(config: dict[str, Any]) -> list[Problem]:
    """What keeps a certain run from going on under this config."""
    from unnoise.runs.checkpoints import find_checkpoint
    from unnoise.untrusted import UnsafeFile, load_yaml

    run_dir = Path(config["resume"])
    try:
        find_checkpoint(run_dir)
        if not RunDirectory(run_dir).config.is_file():
            raise FileNotFoundError(f"{run_dir} is not a run directory")
        before = load_yaml(RunDirectory(run_dir).config)
        then, now = (dict(leaves(_fixed(c))) for c in (before, config))
    except (FileNotFoundError, UnsafeFile) as error:
        return [Problem("resume", str(error))]
    except (AttributeError, KeyError, TypeError):
        return [Problem("resume", f"{RunDirectory(run_dir).config} is not the config of a run")]
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


def leaves(tree: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """The values of a plain tree by their dotted keys; lists are values."""
    if isinstance(tree, dict):
        for name, value in tree.items():
            yield from leaves(value, f"{key}.{name}" if key else str(name))
    else:
        yield key, tree


def run_directory(*, _root_: DictConfig) -> str:
    """``outputs/<name>/<time>_<digest>-<digest>``; when resuming, the newest such run there is.

    The first digest is of what decides what is trained, the second of what decides what is drawn,
    followed by one of the rest. A run is resumed that agrees in all, or else in the first two, or
    else in the first.
    """
    if isinstance(_root_.resume, str):
        return str(_root_.resume)
    home, whole = OUTPUTS / _root_.name, identity(_resolved(_root_))
    related = (whole, f"{whole[:13]}*", f"{whole[:8]}-*")
    for digests in related if _root_.resume or requeued() else ():
        if earlier := sorted(home.glob(f"*_{digests}/checkpoints/step_*.ckpt")):
            return str(earlier[-1].parents[1])
    return str(home / f"{STARTED}_{whole}")


def job_directory(*, _root_: DictConfig) -> str:
    """Where a sweep's job belongs: to the run of its identity that came furthest, or a new one."""
    home, whole = OUTPUTS / _root_.name, identity(_resolved(_root_))
    runs = sorted(home.glob(f"*_{whole}"), key=_how_far)
    return os.path.abspath(str(runs[-1] if runs else home / f"{STARTED}_{whole}"))


@contextmanager
def sweep_told(name: str) -> Iterator[None]:
    """Let this process and those that it starts know which sweep they belong to, and its start."""
    told = {SWEEP: name, START: STARTED}
    before = {key: os.environ[key] for key in told if key in os.environ}
    os.environ.update(told)
    try:
        yield
    finally:
        for key in told:
            os.environ.pop(key)
        os.environ.update(before)


def identity(config: dict[str, Any]) -> str:
    """The digests of a resolved config that its run directory is named by."""
    rest = {key: config[key] for key in VOLATILE if key in config and key not in NAMELESS}
    if "root" in config["data"] and not str(config["data"]["_target_"]).startswith(DOWNLOADED):
        rest["root"] = config["data"]["root"]
    drawn = {key: config[key] for key in DRAWING}
    return f"{digest(_fixed(config), 8)}-{digest(drawn, 4)}{digest(rest, 4)}"


def digest(content: Any, length: int) -> str:
    """The first hexadecimal digits of a plain tree's SHA-256."""
    text = json.dumps(_plain_numbers(content), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def _plain_numbers(tree: Any) -> Any:
    """The tree with 1 for 1.0, as which of them is typed makes no difference."""
    if isinstance(tree, dict):
        return {key: _plain_numbers(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_plain_numbers(value) for value in tree]
    return int(tree) if isinstance(tree, float) and tree.is_integer() else tree


def _resolved(root: DictConfig) -> dict[str, Any]:
    """The config without Hydra's part; a key that asks for the run directory stays as written."""
    written: Any = OmegaConf.to_container(root, resolve=False)
    config: dict[str, Any] = {}
    for key in written.keys() - {"hydra"}:
        try:
            value = root[key]
            is_tree = OmegaConf.is_config(value)
            config[key] = OmegaConf.to_container(value, resolve=True) if is_tree else value
        except OmegaConfBaseException:
            config[key] = written[key]
    return config


def _how_far(run_dir: Path) -> tuple[bool, bool, str]:
    try:
        ended = json.loads(RunDirectory(run_dir).manifest.read_text())
        done = isinstance(ended, dict) and ("finished" in ended or "pruned" in ended)
    except (OSError, ValueError):
        done = False
    return done, bool(RunDirectory(run_dir).saved()), run_dir.name


OmegaConf.register_new_resolver("run_directory", run_directory, replace=True)
OmegaConf.register_new_resolver("job_directory", job_directory, replace=True)
OmegaConf.register_new_resolver("sweep", lambda: os.environ.get(SWEEP, "none"), replace=True)
