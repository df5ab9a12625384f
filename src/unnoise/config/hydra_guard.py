"""What a configuration may have Hydra itself call: its plugins, and nothing else.

Hydra builds what ``_target_`` names under ``hydra`` (launcher, sweeper, callbacks) and what its
logging names by rules of its own, before any of ours is asked. A shared folder of configurations
could so bring code; it is refused before Hydra starts.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from hydra.core.plugins import Plugins
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException

from unnoise.config.nodes import USERS_PACKAGES, resolve_target
from unnoise.config.problems import ConfigError, Problem

BUILT = tuple(
    f"hydra.{part}" for part in ("callbacks", "launcher", "sweeper", "job_logging", "hydra_logging")
)
"""What Hydra builds objects from."""
CALLBACKS = tuple(
    f"hydra.experimental.callbacks.{name}"
    for name in ("LogJobReturnCallback", "PickleJobInfoCallback")
)
CLUSTERS = "hydra_plugins.hydra_ray_launcher.ray_aws_launcher.RayAWSLauncher"
"""Of Hydra's plugins the one that is refused: its config is of commands all over."""
OPTUNA = r"optuna\.(samplers|pruners)\.[A-Z]\w+"
LOGGING = {
    "class": tuple(
        f"logging.{name}" for name in ("StreamHandler", "FileHandler", "NullHandler", "Formatter")
    ),
    "()": ("colorlog.ColoredFormatter",),
}
"""Keys by which logging names what it calls, and what they may say."""
STREAMS = ("ext://sys.stdout", "ext://sys.stderr")
ENVIRONMENT = (
    *("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "PYTORCH_CUDA_ALLOC_CONF", "NCCL_DEBUG"),
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "WANDB_MODE", "UNNOISE_DATA", "UNNOISE_CACHE"),
)
"""Variables that hydra.job.env_set may set; others can load code into what is started later."""
COMMANDS = ("setup", "additional_parameters", "ray.init.runtime_env", "ray.remote.runtime_env")
"""Keys of launchers with which SLURM and Ray run commands on other machines."""


def hydra_problems(
    node: DictConfig, typed: Sequence[str] = (), shipped: Sequence[str] = ()
) -> list[Problem]:
    """What a composed ``hydra`` node would have called that is none of Hydra's plugins.

    Commands for other machines are for the command line (``typed``) to say, but for ``shipped``.
    """
    found = [*_problems(node, "hydra"), *_commands(node, typed, shipped)]
    if node.get("mode") is not None:
        told = "the command line says which it is: with -m a sweep, without it one run"
        found.append(Problem("hydra.mode", told))
    return found


def _problems(node: DictConfig | ListConfig, key: str) -> Iterator[Problem]:
    names: list[Any] = list(node) if isinstance(node, DictConfig) else list(range(len(node)))
    for name in names:
        where = f"{key}.{name}"
        raw = node._get_node(name)._value()  # type: ignore[union-attr]
        if isinstance(raw, str) and "${hydra:" in raw and where.startswith(BUILT):
            yield Problem(where, "is to be told by Hydra only when it builds it: write it out")
        try:
            value = None if OmegaConf.is_missing(node, name) else node[name]
        except InterpolationToMissingValueError:
            value = None
        except OmegaConfBaseException:
            value = node._get_node(name)._value()  # type: ignore[union-attr]
        if isinstance(value, dict | list):  # as a resolver makes them
            value = OmegaConf.create(value)
        if isinstance(value, DictConfig | ListConfig):
            yield from _problems(value, where)
        elif value is not None and (told := _wrong(str(name), value, where)):
            yield Problem(where, told)
        if where.startswith("hydra.job.env_set.") and name not in ENVIRONMENT:
            yield Problem(where, f"set it in the shell: a config sets {', '.join(ENVIRONMENT)}")
        if where.startswith("hydra.sweeper.params.") and "hydra" in where.split(".", 3)[3]:
            yield Problem(where, "a sweep is of the configuration, not of Hydra's own")


def _commands(node: DictConfig, typed: Sequence[str], shipped: Sequence[str]) -> Iterator[Problem]:
    keys = {line.lstrip("+").partition("=")[0] for line in typed}
    for name in COMMANDS:
        key = f"hydra.launcher.{name}"
        try:
            value = OmegaConf.select(node, f"launcher.{name}")
            tree = OmegaConf.to_container(value, resolve=True) if value else None
        except (OmegaConfBaseException, ValueError):
            tree = "?"  # what cannot be resolved, or is no container
        if isinstance(tree, dict):
            brought = [each for part in tree if (each := f"{key}.{part!s}") not in keys]
        else:
            brought = [key] if tree and key not in keys and tree != shipped else []
        for each in brought:
            yield Problem(each, "has commands run: write it on the command line, not in a config")


def _wrong(name: str, value: Any, where: str) -> str | None:
    """Why a value cannot be had called; None if it can, or if nothing would call it."""
    if name == "_target_" and not _is_plugin(value):
        return f"{value!r} is no plugin of Hydra (for a package of your own, set UNNOISE_ALLOW)"
    if name == "custom_search_space" and not _is_users(value):
        return f"{value!r} is in no package that UNNOISE_ALLOW names"
    if where.startswith(("hydra.job_logging.", "hydra.hydra_logging.")):
        if name in LOGGING and value not in LOGGING[name]:
            return f"{value!r} is not one of {', '.join(LOGGING[name])}"
        if isinstance(value, str) and re.match(r"\s*ext://", value) and value not in STREAMS:
            return f"{value!r} is not one of {', '.join(STREAMS)}"
    whole = isinstance(value, str) and re.fullmatch(r"\$\{.*\}", value.strip(), re.DOTALL)
    if whole and where.startswith(BUILT):
        return f"{value!r} cannot be resolved before Hydra starts: write what it stands for"
    return None


def _is_plugin(target: Any) -> bool:
    known = {*Plugins.instance().class_name_to_class, *CALLBACKS} - {CLUSTERS}
    return isinstance(target, str) and (
        target in known or bool(re.fullmatch(OPTUNA, target, re.ASCII)) or _is_users(target)
    )


def _is_users(target: Any) -> bool:
    try:
        return any(str(target).startswith(f"{each}.") for each in USERS_PACKAGES) and bool(
            resolve_target(target)
        )
    except ConfigError:
        return False
