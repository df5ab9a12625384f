"""What must hold between the parts of a run's config, each of which is right by itself."""

from collections.abc import Iterator
from typing import Any

import torch

from unnoise.cli.config import Problem, instantiate
from unnoise.data.loading import ImageSource
from unnoise.diffusion.schedules import NoiseSchedule
from unnoise.model import check_prediction
from unnoise.networks.conditioning import Conditioner

SET_HERE = {
    "max_steps": "max_steps",
    "max_epochs": "max_steps",
    "precision": "precision",
    "accumulate_grad_batches": "accumulate",
    "gradient_clip_val": "gradient_clip",
    "val_check_interval": "validate_every",
    "check_val_every_n_epoch": "validate_every",
    "callbacks": "callbacks",
    "logger": "logger",
    "default_root_dir": "name",
}
"""Arguments of the Trainer that follow from keys of the config."""
WIDTHS = {"condition_width": "width", "token_width": "token_width", "spatial_channels": "channels"}
"""Keys of the network, and the attributes of the conditioner that they must equal."""


def rules(config: dict[str, Any]) -> list[Problem]:
    """What must hold between the parts of an otherwise right config."""
    data, schedule = instantiate(config["data"]), instantiate(config["schedule"])
    found = [*_batches(config), *_data(config, data), *_schedule(config, schedule)]
    with torch.device("meta"):
        network, conditioner = instantiate(config["network"]), instantiate(config["conditioning"])
    found += _conditioning(config, data, network, conditioner)
    found += _learned_variance(config)
    for key in set(SET_HERE) & set(config["trainer"]):
        found.append(Problem(f"trainer.{key}", f"is set from the key {SET_HERE[key]}: use that"))
    return found


def _batches(config: dict[str, Any]) -> Iterator[Problem]:
    parts = config["accumulate"]
    devices, nodes = config["trainer"].get("devices", 1), config["trainer"].get("num_nodes", 1)
    if isinstance(devices, int) and isinstance(nodes, int) and devices > 0:
        parts *= devices * nodes
    if config["batch_size"] % parts:
        yield Problem(
            "batch_size",
            f"{config['batch_size']} does not divide into {parts} parts "
            "(accumulate × trainer.devices × trainer.num_nodes)",
        )
    if config["precision"] == "fp16" and config["optimizer"].get("fused"):
        yield Problem(
            "optimizer.fused", "must be false with precision=fp16: clipping could not see it"
        )


def _data(config: dict[str, Any], data: ImageSource) -> Iterator[Problem]:
    try:
        images = data.check()
    except (FileNotFoundError, ValueError, ImportError) as error:
        yield Problem("data", str(error))
        return
    if images is not None and config["batch_size"] > images:
        yield Problem(
            "batch_size", f"{config['batch_size']} is more than the data ({images} images)"
        )


def _schedule(config: dict[str, Any], schedule: NoiseSchedule) -> Iterator[Problem]:
    for key, node in _samplers(config):
        try:
            schedule.grid(node["steps"], node["spacing"])
        except ValueError as error:
            yield Problem(f"{key}.steps", str(error))
    try:
        check_prediction(instantiate(config["prediction"]), schedule)
    except ValueError as error:
        yield Problem("prediction", str(error))
    noisiest = schedule.grid(1, "uniform")[0]
    left = float(noisiest.alpha**2 / (noisiest.alpha**2 + noisiest.sigma**2))
    if left > 0.01:
        yield Problem(
            "schedule",
            f"does not reach noise: {left:.1%} of the picture's power is left at the last "
            "level, but sampling starts from pure noise; use more levels T or a larger beta",
            "warning",
        )


def _conditioning(
    config: dict[str, Any], data: ImageSource, network: Any, conditioner: Conditioner | None
) -> Iterator[Problem]:
    """What the network is to be told must be there, and must fit."""
    if conditioner is None:
        for key, node in _samplers(config):
            if node.get("guidance", {}).get("scale", 1) != 1:
                yield Problem(
                    f"{key}.guidance.scale",
                    "guidance needs a condition to guide to: choose a conditioning",
                )
    elif "caption" in conditioner.reads and not data.captioned:
        yield Problem("conditioning", "reads captions, which this data does not have")
    for key, attribute in WIDTHS.items():
        wanted = 0 if conditioner is None else getattr(conditioner, attribute)
        given = config["network"].get(key)
        if (given or 0) != wanted:
            yield Problem(
                f"network.{key}",
                f"is {given}, but the conditioning gives {wanted or None}: they must be equal",
            )


def _learned_variance(config: dict[str, Any]) -> Iterator[Problem]:
    """A variance that is sampled from must be learned, and one that is learned needs its loss."""
    if config["network"].get("learned_variance", False) != config["learned_variance"]:
        yield Problem("network.learned_variance", "must be ${learned_variance}")
    learned = "set learned_variance=true (and an objective that trains it: hybrid or vlb)"
    for key, node in _samplers(config):
        if node["stepper"].get("variance") == "learned" and not config["learned_variance"]:
            yield Problem(f"{key}.stepper.variance", f"nothing learns it: {learned}")
    objective = instantiate(config["objective"])
    if objective.trains_variance and not config["learned_variance"]:
        yield Problem("objective", f"trains a variance that the network lacks: {learned}")
    if config["learned_variance"] and not objective.trains_variance:
        yield Problem("objective", "leaves the learned variance untrained: use hybrid or vlb")


def _samplers(config: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "sampler", config["sampler"]
    for name, callback in config["callbacks"].items():
        for key in ("sampler", "final"):
            node = callback.get(key) if isinstance(callback, dict) else None
            if isinstance(node, dict) and "steps" in node and node != config["sampler"]:
                yield f"callbacks.{name}.{key}", node


def logger_rules(config: dict[str, Any]) -> list[Problem]:
    """A dashboard must not ask for credentials in the middle of a run."""
    from unnoise.training.loggers import wandb_credentials

    logger = config["logger"]
    wants_wandb = logger["_target_"].endswith(".wandb") and logger.get("mode") != "offline"
    if wants_wandb and not wandb_credentials():
        return [
            Problem(
                "logger",
                "Weights & Biases has no credentials here: run `wandb login`, or set "
                "WANDB_API_KEY, or use logger.mode=offline, or logger=tensorboard",
            )
        ]
    return []
