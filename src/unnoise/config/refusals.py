"""Why Hydra refuses an override, in words that say what would be right."""

import difflib
import functools
import re
from collections.abc import Iterator, Sequence
from typing import Any

import yaml  # type: ignore[import-untyped]
from hydra.core.override_parser.types import Override
from hydra.errors import MissingConfigException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException

from unnoise.config.nodes import RESERVED, resolve_target
from unnoise.config.problems import ConfigError, did_you_mean
from unnoise.config.schema import parameters

PACKAGES = {
    "hydra/sweeper/optuna": "sweeps",
    "hydra/launcher/joblib": "sweeps",
    "hydra/launcher/submitit_local": "sweeps",
    "hydra/launcher/submitit_slurm": "sweeps",
    "hydra/launcher/ray": "ray",
}
"""Options that come with packages which may not be there, and the extra that has them."""


def group_refusal(override: Override, line: str, error: Exception, options: Sequence[str]) -> str:
    """Why an option of a group cannot be chosen."""
    text, bare, value = first_line(error), line.lstrip("+~"), line.partition("=")[2]
    missing = str(error.missing_cfg_file) if isinstance(error, MissingConfigException) else ""
    if missing in PACKAGES:
        return f"needs a package that is not there: pip install 'unnoise[{PACKAGES[missing]}]'"
    if value not in options and "/" not in value and not value.startswith("["):
        return f"no such option{did_you_mean(value, options)} ({', '.join(options)})"
    if isinstance(error, MissingConfigException) and error.options:
        near = did_you_mean(missing.rpartition("/")[2], error.options)
        return f"names '{missing}', which does not exist{near}"
    if "No match in the defaults list" in text and override.is_delete():
        return "is not a part of this configuration: there is nothing to remove"
    if "No match in the defaults list" in text:
        return f"is not a part of this configuration; to add it write +{bare}"
    if "Multiple values" in text:
        return f"is a part of the configuration already; write {bare}"
    return text


def value_refusal(
    override: Override, line: str, error: Exception, config: DictConfig, groups: Sequence[str]
) -> str:
    """Why a value cannot be set in a composed config."""
    name, text, bare = override.key_or_group, first_line(error), line.lstrip("+~")
    if "Could not append" in text:
        return f"is set already; write {bare}"
    tree: Any = OmegaConf.to_container(config, resolve=False)
    tree = {k: v for k, v in tree.items() if (k == "hydra") == override.is_hydra_override()}
    keys = list(dotted(tree))
    if name in keys:
        return text
    parent, _, leaf = name.rpartition(".")
    siblings = _parameters_at(tree, parent)
    if leaf in siblings and not override.is_delete():
        return f"is not set in this configuration; to add it write +{bare}"
    known = [*keys, *(f"{parent}.{sibling}" for sibling in siblings)]
    known = [key for key in known if not key.endswith(RESERVED) and (key != parent or not siblings)]
    near = did_you_mean(name, known if "." in name else [*known, *groups])
    if not near:
        alike = difflib.get_close_matches(leaf, [key.rpartition(".")[2] for key in keys], n=1)
        near = did_you_mean(name, [k for k in keys if k.rpartition(".")[2] in alike], cutoff=0)
    return f"unknown key{near}"


def unresolved(error: OmegaConfBaseException, container: DictConfig | ListConfig) -> str:
    """Why an interpolation in a container has no value."""
    text = first_line(error)
    if isinstance(error, InterpolationKeyError) and (wanted := re.search(r"'(.*)'", text)):
        root = OmegaConf.to_container(container._get_root(), resolve=False)
        keys = [key for key in dotted(root) if not key.startswith("hydra")]
        return f"refers to '{wanted[1]}', which does not exist{did_you_mean(wanted[1], keys)}"
    if variable := re.search(r"Environment variable '(.*)' not found", text):
        return f"environment variable '{variable[1]}' is not set"
    return re.sub(r"^\w+ raised while resolving interpolation: ", "", text)


def first_line(error: Exception) -> str:
    """The first line of an error; for YAML also the place."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        mark = error.problem_mark
        return f"{error.problem} in {mark.name}, line {mark.line + 1}, column {mark.column + 1}"
    return (str(error) or type(error).__name__).strip().splitlines()[0]


def dotted(tree: Any, prefix: str = "") -> Iterator[str]:
    """All keys of a plain tree of dicts, inner and outer."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield f"{prefix}{key}"
            yield from dotted(value, f"{prefix}{key}.")


def _parameters_at(config: Any, key: str) -> list[str]:
    """The parameters of the node at a dotted key; none where there is no such node."""
    try:
        node = functools.reduce(lambda tree, name: tree[name], key.split("."), config)
        return list(parameters(resolve_target(node["_target_"]))) if key else []
    except (KeyError, TypeError, IndexError, ConfigError):
        return []
