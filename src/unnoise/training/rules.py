"""What must hold between the parts of a run's config, each of which is right by itself."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from unnoise.config.nodes import instantiate
from unnoise.config.problems import ConfigError, Problem, did_you_mean
from unnoise.data.source import ImageSource
from unnoise.diffusion.objectives import VariationalBound
from unnoise.diffusion.schedules import NoiseSchedule
from unnoise.diffusion.weights import Weight
from unnoise.distributed.devices import count
from unnoise.models.diffusion import check_prediction
from unnoise.networks.conditioning import ClassConditioner, Conditioner

SET_HERE = {
    "max_steps": "max_steps",
    "max_epochs": "max_steps",
    "fast_dev_run": "max_steps",
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
MOST_OF_FEW = 0.5  # EDM's levels under L_simple, with a network that predicts x0, have 0.24
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
    found += [*_measurements(config, data, schedule)]
    found += [] if found else _weight(config, schedule)
    for key in set(SET_HERE) & set(config["trainer"]):
        found.append(Problem(f"trainer.{key}", f"is set from the key {SET_HERE[key]}: use that"))
    return found


def _batches(config: dict[str, Any]) -> Iterator[Problem]:
    trainer, accumulate = config["trainer"], config["accumulate"]
    nodes = trainer.get("num_nodes", 1)
    try:
        devices = count(trainer.get("devices", 1), str(trainer.get("accelerator", "auto")))
    except ValueError:
        told = "is a number, a list of numbers, auto or -1"
        yield Problem("trainer.devices", f"{told}, not {trainer['devices']!r}")
        return
    parts = accumulate * devices * nodes
    if devices < 1 or nodes < 1:
        key, value = ("devices", devices) if devices < 1 else ("num_nodes", nodes)
        yield Problem(f"trainer.{key}", f"{value} of them can train nothing")
    elif config["batch_size"] % parts:
        yield Problem(
            "batch_size",
            f"{config['batch_size']} does not divide into {parts} parts (accumulate {accumulate} × "
            f"{devices} trainer.devices × {nodes} trainer.num_nodes)",
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


def _weight(config: dict[str, Any], schedule: NoiseSchedule) -> Iterator[Problem]:
    """How the objective weighs the levels that training draws, as an error of the network's output.

    An error of the output is one of out·F in x0, which L_simple weighs with the SNR.
    """
    objective, prediction = instantiate(config["objective"]), instantiate(config["prediction"])
    weight = getattr(objective, "weight", None)
    weigh = weight if isinstance(weight, Weight) else (lambda snr: snr)
    if isinstance(objective, VariationalBound):
        return
    u = torch.linspace(1e-4, 1 - 1e-4, 10_000)
    level = schedule.level(schedule.sample_times(u))
    out = prediction.coefficients(level.alpha, level.sigma)[1]
    weights = weigh((level.alpha / level.sigma) ** 2) * out**2
    few = float(weights.topk(len(u) // 1000).values.sum() / weights.sum())
    if few > MOST_OF_FEW:
        yield Problem(
            "objective",
            f"gives one in a thousand training times {few:.0%} of the weight of the network's "
            "errors: use another objective with this prediction and schedule",
        )
    noisiest = schedule.grid(1)[0]
    if noisiest.alpha == 0 and float(weigh(torch.zeros(()))) == 0:
        yield Problem(
            "objective",
            "has weight 0 where nothing is left of the picture, so that the level at which "
            "sampling starts is not trained: use v, velocity or x0",
            "warning",
        )


def _conditioning(
    config: dict[str, Any], data: ImageSource, network: Any, conditioner: Conditioner | None
) -> Iterator[Problem]:
    """What the network is to be told must be there, and must fit."""
    for key, node in _samplers(config):
        if node.get("guidance", {}).get("scale", 1) != 1:
            if conditioner is None:
                needs = "a condition to guide to: choose a conditioning"
            elif config["condition_dropout"] == 0:
                needs = "a model that can do without: set condition_dropout above 0"
            else:
                continue
            yield Problem(f"{key}.guidance.scale", f"guidance needs {needs}")
    for key, attribute in WIDTHS.items():
        wanted = 0 if conditioner is None else getattr(conditioner, attribute)
        given = config["network"].get(key)
        if (given or 0) != wanted:
            yield Problem(
                f"network.{key}",
                f"is {given}, but the conditioning gives {wanted or None}: they must be equal",
            )
    if conditioner is None:
        return
    if "caption" in conditioner.reads and not data.captioned:
        yield Problem("conditioning", "reads captions, which this data does not have")
    elif "caption" in conditioner.reads and config["flip"]:
        message = "mirrors pictures, but not what captions may say of left and right"
        yield Problem("flip", message, "warning")
    classes = config["data"].get("classes")
    for part in conditioner.modules():
        if isinstance(part, ClassConditioner) and classes and part.classes != classes:
            yield Problem(
                "conditioning", f"knows {part.classes} classes, but the data has {classes}"
            )
    if conditioner.reads == ("image",):
        size, keep = data.image_size, torch.ones(1, dtype=torch.bool, device="meta")
        image = torch.zeros(1, data.channels, size, size, dtype=torch.uint8, device="meta")
        try:
            conditioner({"image": image}, keep)
        except ValueError as error:
            yield Problem("conditioning", str(error))


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


def _measurements(
    config: dict[str, Any], data: ImageSource, schedule: NoiseSchedule
) -> Iterator[Problem]:
    """What is measured while a run trains must be to be had before it starts."""
    for name, node in config["callbacks"].items():
        key, node = f"callbacks.{name}", node if isinstance(node, dict) else {}
        target, steps = node.get("_target_"), node.get("steps")
        if target == "unnoise.training.callbacks.likelihood.BitsPerDim" and isinstance(steps, int):
            try:
                schedule.grid(steps)
            except ValueError as error:
                yield Problem(f"{key}.steps", str(error))
        elif target == "unnoise.training.callbacks.quality.Quality":
            yield from _extractor(key, node, data)


def _extractor(key: str, node: dict[str, Any], data: ImageSource) -> Iterator[Problem]:
    """Whether the extractor of a measurement is one, as far as can be told without reading it."""
    from unnoise.data.source import own_extractor
    from unnoise.evaluation.extractors.find import NAMES

    own, known = own_extractor(data) or "inception", ("auto", "inception", *NAMES)
    name, weights = str(node.get("extractor", "auto")), node.get("weights")
    if name not in known and not Path(name).is_file():
        near = did_you_mean(name, known)
        message = f"there is no extractor {name}{near} ({', '.join(known)}, or a file)"
        yield Problem(f"{key}.extractor", message)
    if weights is None:
        return
    name = own if name == "auto" else name
    if name != "inception":
        yield Problem(f"{key}.weights", f"are those of inception, but the extractor is {name}")
    elif not Path(str(weights)).expanduser().is_file():
        yield Problem(f"{key}.weights", f"there is no file {weights}")


def _samplers(config: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "sampler", config["sampler"]
    for name, callback in config["callbacks"].items():
        for key in ("sampler", "final"):
            node = callback.get(key) if isinstance(callback, dict) else None
            if isinstance(node, dict) and "steps" in node and node != config["sampler"]:
                yield f"callbacks.{name}.{key}", node


def require_devices(trainer: dict[str, Any]) -> None:
    """Hold what a trainer wants against this machine, which has to be the one that trains.

    Raises:
        ConfigError: there is no such device here, or fewer than it wants.
    """
    wanted, devices = trainer.get("accelerator"), trainer.get("devices", 1)
    cpu = "trainer=cpu trains without, trainer=auto on what there is"
    if wanted == "mps" and not torch.backends.mps.is_available():
        raise ConfigError(f"trainer.accelerator: there is no Apple GPU here (mps); {cpu}")
    if wanted not in ("gpu", "cuda") or torch.backends.mps.is_available():
        return
    there = torch.cuda.device_count()
    if there == 0:
        raise ConfigError(f"trainer.accelerator: there is no GPU here that PyTorch can use; {cpu}")
    missing = [k for k in devices if k >= there] if isinstance(devices, list) else []
    if missing or (isinstance(devices, int) and devices > there):
        found = "is 1 GPU" if there == 1 else f"are {there} GPUs"
        raise ConfigError(f"trainer.devices: {devices} asked for, but there {found} here")


def logger_rules(config: dict[str, Any]) -> list[Problem]:
    """A dashboard must not ask for credentials in the middle of a run."""
    from unnoise.training.logging.choices import wandb_credentials

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
