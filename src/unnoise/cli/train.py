"""unnoise-train: train a diffusion model as a config says."""

import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from unnoise.cli.command import run
from unnoise.cli.config import UNKNOWN, ConfigError, Problem, instantiate
from unnoise.cli.preflight import construction_problems, problems

OUTPUTS = Path("outputs")
LIGHTNING = ("callbacks", "logger", "trainer")
VOLATILE = (
    *("hydra", "name", "resume", "sampler", "trainer", "logger", "callbacks"),
    *("workers", "accumulate", "validate_every", "validation_images"),
)
"""Keys that do not change what is computed: a run is resumed whatever they are."""
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
_RANK = int(os.environ.get("LOCAL_RANK", 0))
_STARTED = time.strftime("%Y-%m-%d_%H-%M-%S")
if _RANK == 0:
    os.environ["UNNOISE_STARTED"] = _STARTED  # so that every rank names the same run directory
else:
    _STARTED = os.environ.get("UNNOISE_STARTED", _STARTED)


def main() -> None:
    """The command's entry point."""
    run("train", check, train)


def check(config: dict[str, Any]) -> Iterator[list[Problem]]:
    """All that is wrong with a run's config: keys and values, constructors, and rules across.

    What needs Lightning comes second, since importing it takes longer than all the rest.
    """
    from unnoise.training.experiment import Experiment

    keys = [field.name for field in dataclasses.fields(Experiment)]
    quick = {key: UNKNOWN if key in LIGHTNING else value for key, value in config.items()}
    found = problems(quick, Experiment)
    right = set(config) - {problem.key.partition(".")[0] for problem in found}
    found += construction_problems(config, [k for k in ("network", "conditioning") if k in right])
    others = ("data", "schedule", "prediction", "objective", "times", "sampler")
    found += construction_problems(config, [k for k in others if k in right], device="cpu")
    yield found or rules(config)

    slow = {key: config[key] if key in LIGHTNING else UNKNOWN for key in config if key in keys}
    found = problems(slow, Experiment)
    yield found or construction_problems(config, ["callbacks"], device="cpu") + logger_rules(config)


def rules(config: dict[str, Any]) -> list[Problem]:
    """What must hold between the parts of an otherwise right config."""
    found = []
    parts = config["accumulate"]
    devices, nodes = config["trainer"].get("devices", 1), config["trainer"].get("num_nodes", 1)
    if isinstance(devices, int) and isinstance(nodes, int) and devices > 0:
        parts *= devices * nodes
    if config["batch_size"] % parts:
        found.append(
            Problem(
                "batch_size",
                f"{config['batch_size']} does not divide into {parts} parts "
                "(accumulate × trainer.devices × trainer.num_nodes)",
            )
        )
    if config["precision"] == "fp16" and config["optimizer"].get("fused"):
        found.append(
            Problem(
                "optimizer.fused", "must be false with precision=fp16: clipping could not see it"
            )
        )
    data = instantiate(config["data"])
    try:
        images = data.check()
    except (FileNotFoundError, ValueError, ImportError) as error:
        found.append(Problem("data", str(error)))
        images = None
    if images is not None and config["batch_size"] > images:
        found.append(
            Problem("batch_size", f"{config['batch_size']} is more than the data ({images} images)")
        )
    schedule = instantiate(config["schedule"])
    for key, node in _samplers(config):
        try:
            schedule.grid(node["steps"], node["spacing"])
        except ValueError as error:
            found.append(Problem(f"{key}.steps", str(error)))
    levels = schedule.grid(1, "uniform")
    left = float(levels[0].alpha ** 2 / (levels[0].alpha ** 2 + levels[0].sigma ** 2))
    if left > 0.01:
        found.append(
            Problem(
                "schedule",
                f"does not reach noise: {left:.1%} of the picture's power is left at the last "
                "level, but sampling starts from pure noise; use more levels T or a larger beta",
                "warning",
            )
        )
    found += resume_problems(config) if isinstance(config["resume"], str) else []
    for key in set(SET_HERE) & set(config["trainer"]):
        found.append(Problem(f"trainer.{key}", f"is set from the key {SET_HERE[key]}: use that"))
    return found


def _samplers(config: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "sampler", config["sampler"]
    for name, callback in config["callbacks"].items():
        for key in ("sampler", "final"):
            node = callback.get(key) if isinstance(callback, dict) else None
            if isinstance(node, dict) and "steps" in node and node != config["sampler"]:
                yield f"callbacks.{name}.{key}", node


def resume_problems(config: dict[str, Any]) -> list[Problem]:
    """What keeps a certain run from going on under this config."""
    from unnoise.api import find_checkpoint

    run_dir = Path(config["resume"])
    try:
        find_checkpoint(run_dir)
        if not (run_dir / "config.yaml").is_file():
            raise FileNotFoundError(f"{run_dir} is not a run directory")
    except FileNotFoundError as error:
        return [Problem("resume", str(error))]
    before: Any = OmegaConf.to_container(OmegaConf.load(run_dir / "config.yaml"))
    then, now = (dict(_leaves(_fixed(c))) for c in (before, config))
    return [
        Problem(key, f"is {now.get(key)!r}, but {run_dir} was trained with {then.get(key)!r}")
        for key in sorted(then.keys() | now.keys())
        if then.get(key) != now.get(key)
        and not (key == "max_steps" and config["lr_decay"] == "constant")
    ]


def _fixed(config: dict[str, Any]) -> dict[str, Any]:
    """The part of a config that decides what is computed."""
    fixed = {key: value for key, value in config.items() if key not in VOLATILE}
    return fixed | {"data": {k: v for k, v in fixed["data"].items() if k != "root"}}


def _leaves(tree: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict):
        for name, value in tree.items():
            yield from _leaves(value, f"{key}.{name}" if key else str(name))
    else:
        yield key, tree


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


def train(config: dict[str, Any]) -> None:
    """Train the run in Hydra's output directory, and say where its results are."""
    import torch

    from unnoise.training.checkpoints import checkpoints, step_of, write_durably
    from unnoise.training.experiment import Experiment
    from unnoise.training.launch import fit

    run_dir = Path(HydraConfig.get().runtime.output_dir)
    checkpoint = next(reversed(checkpoints(run_dir)), None) if config["resume"] else None
    shown = _short(run_dir)
    if checkpoint is not None:
        print(f"resuming {shown} at step {step_of(checkpoint)}")
    elif config["resume"]:
        print("resume: no checkpoint of an earlier run of this configuration, starting at step 0")
    if HydraConfig.get().mode == RunMode.MULTIRUN and config["trainer"].get("devices", 1) != 1:
        raise ConfigError("a sweep trains its jobs on one device each: set trainer.devices=1")
    torch.manual_seed(config["seed"])
    experiment = Experiment(**{key: instantiate(value) for key, value in config.items()})
    if _RANK == 0:
        try:
            experiment.data.prepare()
        except (FileNotFoundError, ValueError) as error:
            raise ConfigError(f"data: {error}") from error
        text = OmegaConf.to_yaml(OmegaConf.create(config))
        write_durably(run_dir / "config.yaml", lambda temporary: temporary.write_text(text))
    started = time.monotonic()
    results = fit(experiment, config, run_dir, checkpoint)
    minutes, seconds = divmod(int(time.monotonic() - started), 60)
    print(f"\n{experiment.name}: done in {minutes} min {seconds:02d} s")
    for name, path in results.items():
        print(f"  {name:<16} {_short(path)}")
    print(f"  {'draw more':<16} unnoise-sample run={shown}")


def run_directory(*, _root_: DictConfig) -> str:
    """``outputs/<name>/<time>_<digest>``; when resuming, the newest such run with a checkpoint.

    The digest is of the config without what does not change the results.
    """
    if isinstance(_root_.resume, str):
        return _root_.resume
    config: Any = OmegaConf.to_container(_root_, resolve=False)
    fixed = json.dumps(_fixed(config), sort_keys=True)
    digest = hashlib.sha256(fixed.encode()).hexdigest()[:8]
    if _root_.resume:
        earlier = sorted((OUTPUTS / _root_.name).glob(f"*_{digest}/checkpoints/step_*.ckpt"))
        if earlier:
            return str(earlier[-1].parents[1])
    return str(OUTPUTS / _root_.name / f"{_STARTED}_{digest}")


def sweep_directory(*, _root_: DictConfig) -> str:
    """The run directory of a sweep's job, below Hydra's sweep directory."""
    return os.path.relpath(run_directory(_root_=_root_), OUTPUTS)


def _short(path: Path) -> str:
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


OmegaConf.register_new_resolver("run_directory", run_directory, replace=True)
OmegaConf.register_new_resolver("sweep_directory", sweep_directory, replace=True)
