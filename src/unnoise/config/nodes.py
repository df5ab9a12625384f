"""From a configuration to objects.

A configuration is a tree of plain dicts, lists and values. A dict with ``_target_`` is a node: it
stands for ``target(**rest)``, and with ``_partial_: true`` for ``partial(target, **rest)``.
Targets stand behind an allow-list, so that a configuration can choose code but not bring it.
"""

import functools
import importlib
import inspect
import os
import pkgutil
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from types import ModuleType
from typing import Any

from unnoise.config.problems import ConfigError, did_you_mean
from unnoise.config.quick_imports import quick_imports

CLASSES_FROM = tuple(
    f"unnoise.{room}"
    for room in ("data", "networks", "diffusion", "training", "evaluation", "report.figures")
)
FUNCTIONS_FROM = ("unnoise.networks", "unnoise.diffusion", "unnoise.training.logging.choices")
FAMILIES, DATA = ("unnoise.models",), ("unnoise.data",)
MODEL = ("unnoise.networks", "unnoise.diffusion")
"""All that a checkpoint may name as its model, for its data, and for the parts of its model."""
EXTERNAL = (
    *("torch.optim.Adam", "torch.optim.AdamW", "torch.optim.SGD"),
    *("lightning.Trainer", "lightning.pytorch.Trainer"),
    *("optuna.pruners.MedianPruner", "optuna.pruners.PercentilePruner"),
    *("optuna.pruners.SuccessiveHalvingPruner", "optuna.pruners.HyperbandPruner"),
)
NOBODYS = (
    *sorted(sys.stdlib_module_names),
    *("unnoise", "torch", "numpy", "lightning", "pytorch_lightning", "hydra", "omegaconf", "yaml"),
    *("transformers", "datasets", "wandb", "PIL", "matplotlib", "scipy", "pydantic", "pandas"),
    *("torchvision", "torchmetrics", "safetensors", "fsspec", "cloudpickle", "joblib", "ray"),
)
"""Packages that UNNOISE_ALLOW cannot open: they are no user's own, and can run anything."""
# Read once: a configuration can set environment variables (hydra.job.env_set) later.
USERS_PACKAGES = tuple(
    name
    for name in os.environ.get("UNNOISE_ALLOW", "").replace(" ", "").split(",")
    if name and name.partition(".")[0] not in NOBODYS
)
RESERVED = ("_target_", "_partial_")


def resolve_target(path: object, within: Sequence[str] = CLASSES_FROM) -> Callable[..., Any]:
    """The class or function that a ``_target_`` names, if the allow-list has it.

    Allowed are classes defined in ``CLASSES_FROM``, functions defined in ``FUNCTIONS_FROM``, the
    classes in ``EXTERNAL``, and both kinds defined in the packages that the environment variable
    UNNOISE_ALLOW names (comma-separated; none of ``NOBODYS``). What counts is where the object is
    defined, not the path that leads to it. No module outside these packages is imported.

    ``within`` names fewer packages of unnoise, as ``MODEL``; then nothing external is allowed.

    Raises:
        ConfigError: not allowed, or there is no such module or name in it.
    """
    if not isinstance(path, str):
        raise ConfigError(f"{path!r} is not a dotted path such as unnoise.networks.unet.UNet")
    allowed = path in _external(within) or inside(path, (*within, *USERS_PACKAGES))
    if not allowed or not re.fullmatch(r"[A-Za-z]\w*(\.[A-Za-z]\w*)+", path, re.ASCII):
        raise _refusal(path, within)
    module_name, _, name = path.rpartition(".")
    module = _module(module_name, path)
    if not hasattr(module, name):
        names = [n for n, found in vars(module).items() if _allowed(found, path, within)]
        raise ConfigError(f"{module_name} has no '{name}'{did_you_mean(name, names)}")
    target = getattr(module, name)
    if not _allowed(target, path, within):
        raise _refusal(path, within)
    return target  # type: ignore[no-any-return]


def _external(within: Sequence[str]) -> Sequence[str]:
    return EXTERNAL if within == CLASSES_FROM else ()


def inside(path: str, packages: Sequence[str]) -> bool:
    """Whether a dotted path leads into one of the packages."""
    return any(path == package or path.startswith(package + ".") for package in packages)


def _allowed(target: Any, path: str, within: Sequence[str]) -> bool:
    """Whether the object itself, wherever it was found, is one that may be called."""
    if not (inspect.isclass(target) or inspect.isfunction(target)):
        return False
    home = target.__module__
    if getattr(sys.modules.get(home), target.__qualname__, None) is not target:
        return False  # the name that it gives itself does not lead to it
    if path in EXTERNAL:
        return inspect.isclass(target) and inside(home, (path.partition(".")[0],))
    if inside(home, USERS_PACKAGES):
        return True
    return inside(home, within) and (inspect.isclass(target) or inside(home, FUNCTIONS_FROM))


def _refusal(path: str, within: Sequence[str]) -> ConfigError:
    external = _external(within)
    near = did_you_mean(path, external)
    if path.startswith("unnoise."):
        near = did_you_mean(".".join(path.split(".")[:2]), within)
    allowed = f"; allowed are classes of {', '.join([*within, *external])}"
    own = "for a package of your own, set UNNOISE_ALLOW to its name before unnoise is imported"
    if path.partition(".")[0] in NOBODYS:
        own = "UNNOISE_ALLOW is for packages of your own and does not open this one"
    return ConfigError(f"'{path}' is not on the allow-list{near or allowed} ({own})")


def _module(name: str, path: str) -> ModuleType:
    try:
        # packages of the user's may need what is hidden
        with nullcontext() if USERS_PACKAGES else quick_imports():
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if not inside(name, (missing,)):
            raise ConfigError(f"'{path}' needs the package '{missing}': install it") from error
        parent, _, leaf = missing.rpartition(".")
        folders = getattr(sys.modules.get(parent), "__path__", [])
        near = did_you_mean(leaf, (module.name for module in pkgutil.iter_modules(folders)))
        raise ConfigError(f"there is no module '{missing}'{near}") from error
    except ImportError as error:
        raise ConfigError(f"'{path}' cannot be imported: {error}") from error


def instantiate(node: Any, within: Sequence[str] = CLASSES_FROM) -> Any:
    """Build the objects that a plain tree of dicts and lists describes, innermost first.

    Values that are neither dict nor list, objects included, are kept as they are. ``within`` is
    that of ``resolve_target``.

    Raises:
        ConfigError: a target is not allowed, or a key begins with an underscore.
        TypeError: a container is not plain (a DictConfig), or an argument does not exist.
    """
    if isinstance(node, list | tuple):
        return [instantiate(item, within) for item in node]
    if not isinstance(node, dict):
        if isinstance(node, Mapping) or type(node).__name__ == "ListConfig":
            raise TypeError(f"instantiate takes plain dicts and lists, not {type(node).__name__}")
        return node
    if "_target_" not in node:
        return {key: instantiate(item, within) for key, item in node.items()}
    target = resolve_target(node["_target_"], within)
    if odd := [k for k in node if str(k).startswith("_") and k not in RESERVED]:
        raise ConfigError(f"{node['_target_']}: {odd[0]} is not a key of a node")
    arguments = {k: instantiate(item, within) for k, item in node.items() if k not in RESERVED}
    partial = node.get("_partial_", False) is True
    return functools.partial(target, **arguments) if partial else target(**arguments)
