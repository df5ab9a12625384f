"""From the config and the weights of a checkpoint to its model."""

import inspect
from pathlib import Path
from typing import Any

from torch import Tensor

from unnoise.config.nodes import FAMILIES, MODEL, instantiate, resolve_target
from unnoise.config.problems import ConfigError
from unnoise.models.base import GenerativeModel
from unnoise.untrusted import check_fit


def named(model: GenerativeModel) -> dict[str, Any]:
    """What a checkpoint says of the model itself."""
    family = type(model)
    return {"family": f"{family.__module__}.{family.__qualname__}", "shape": [*model.shape]}


def build(
    path: Path, model: dict[str, Any], config: dict[str, Any], state: dict[str, Tensor]
) -> GenerativeModel:
    """The model that ``named`` says, untrained, once its networks are known to fit the weights.

    Raises:
        ConfigError: a target is not allowed, or is no model.
        UnsafeFile: the weights in ``state`` are those of other networks.
    """
    family: Any = resolve_target(model["family"], FAMILIES)
    if not (inspect.isclass(family) and issubclass(family, GenerativeModel)):
        raise ConfigError(f"{model['family']} is no generative model")
    for key, prefix in family.networks.items():
        if config[key] is not None:
            weights = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
            check_fit(path, lambda node=config[key]: instantiate(node, MODEL), weights)  # type: ignore[misc]
    parts = {key: instantiate(config[key], MODEL) for key in (*family.networks, *family.parts)}
    return family.of(parts, tuple(model["shape"]))
