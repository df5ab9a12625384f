"""Hydra's resolvers for runs: their directories, ``${run_directory:}``, and what others hold."""

import atexit
import functools
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from unnoise.config.schema import arguments
from unnoise.distributed.environment import requeued, set_environment
from unnoise.runs.averaged import averaged
from unnoise.runs.first_stage import first_stage
from unnoise.runs.identity import Role, identity, values
from unnoise.runs.layout import RunDirectory

OUTPUTS = Path("outputs")
SWEEP, START = "UNNOISE_SWEEP", "UNNOISE_STARTED"
"""Where in the environment a sweep leaves its digest and its start for its jobs."""
STARTED = os.environ.get(START, time.strftime("%Y-%m-%d_%H-%M-%S"))
"""When the command was started, or the sweep of which it runs jobs."""


def identity_of(config: Mapping[str, Any]) -> str:
    """``identity`` by the signatures of what the config names."""
    return identity(config, arguments)


def directory_of(config: Mapping[str, Any]) -> str:
    """``outputs/<name>/<time>_<trained>-<shown>``; when resuming, the newest such run there is.

    A run is resumed that agrees in both digests, or else in that of what is trained.
    """
    if isinstance(config["resume"], str):
        return config["resume"]
    home, whole = OUTPUTS / config["name"], identity_of(config)
    related = (whole, f"{whole.partition('-')[0]}-*")
    for digests in related if config["resume"] or requeued() else ():
        if earlier := sorted(home.glob(f"*_{digests}/checkpoints/step_*.ckpt")):
            return str(earlier[-1].parents[1])
    return str(home / f"{STARTED}_{whole}")


def job_directory(*, _root_: DictConfig) -> str:
    """Where a sweep's job belongs: to the run of its identity that came furthest, or a new one."""
    home, whole = OUTPUTS / _root_.name, identity_of(_resolved(_root_))
    runs = sorted(home.glob(f"*_{whole}"), key=_how_far)
    return os.path.abspath(str(runs[-1] if runs else home / f"{STARTED}_{whole}"))


def roles_of(root: DictConfig) -> dict[str, Role]:
    """The role of each key of a composed config, outer and inner; a part's is that of its root."""
    found = values(_resolved(root), arguments)
    return {part: each.role for key, each in found.items() for part in (root_of(key), key)}


def root_of(override: str) -> str:
    """The outermost key of an override: ``trainer`` of ``+trainer.devices=2``."""
    return re.split(r"[./@=]", override.lstrip("+~"), maxsplit=1)[0]


def part_of_sweep(name: str) -> AbstractContextManager[None]:
    """Tell this process and those that it starts which sweep they belong to, and its start."""
    return set_environment({SWEEP: name, START: STARTED})


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
        ended = json.loads(RunDirectory(run_dir).manifest.read_text(encoding="utf-8"))
        done = isinstance(ended, dict) and ("finished" in ended or "pruned" in ended)
    except (OSError, ValueError):
        done = False
    return done, bool(RunDirectory(run_dir).saved()), run_dir.name


@functools.cache
def scratch() -> str:
    """A folder for what Hydra notes of a sweep, gone when the process ends."""
    folder = tempfile.mkdtemp(prefix="unnoise_")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


RESOLVERS: dict[str, Any] = {
    "scratch": scratch,
    "run_directory": lambda *, _root_: directory_of(_resolved(_root_)),
    "job_directory": job_directory,
    "sweep": lambda: os.environ.get(SWEEP, "none"),
    "first_stage_network": lambda run: first_stage(run).node,
    "first_stage_digest": lambda run: first_stage(run).digest,
    "averaged_digest": lambda run: averaged(run).digest,
}
for _name, _resolver in RESOLVERS.items():
    OmegaConf.register_new_resolver(_name, _resolver, replace=True)
