"""unnoise-train: train a diffusion model as a config says."""

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from unnoise.cli.command import run
from unnoise.cli.config import Problem, instantiate
from unnoise.cli.preflight import construction_problems, problems

OUTPUTS = Path("outputs")
VOLATILE = ("hydra", "name", "resume", "trainer", "logger", "callbacks", "workers", "accumulate")
"""Keys that do not change what is computed: a run is resumed whatever they are."""


def main() -> None:
    """The command's entry point."""
    run("train", check, train)


def check(config: dict[str, Any]) -> list[Problem]:
    """All that is wrong with a run's config: keys and values, constructors, and rules across."""
    from unnoise.training.launch import Experiment

    found = problems(config, Experiment)
    wrong = {problem.key.partition(".")[0] for problem in found}
    groups = [key for key in config if key not in wrong]
    on_meta = [key for key in ("network", "conditioning") if key in groups]
    on_cpu = [
        key
        for key in ("data", "schedule", "prediction", "objective", "sampler", "callbacks")
        if key in groups
    ]
    found += construction_problems(config, on_meta)
    found += construction_problems(config, on_cpu, device="cpu")
    return found or rules(config)


def rules(config: dict[str, Any]) -> list[Problem]:
    """What must hold between the parts of an otherwise right config."""
    from unnoise.training.loggers import wandb_credentials

    found = []
    parts = config["accumulate"]
    devices, nodes = config["trainer"].get("devices", 1), config["trainer"].get("num_nodes", 1)
    if isinstance(devices, int) and devices > 0:
        parts *= devices * nodes
    if config["batch_size"] % parts:
        found.append(
            Problem(
                "batch_size",
                f"{config['batch_size']} does not divide into {parts} parts "
                "(accumulate × trainer.devices × trainer.num_nodes)",
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
    schedule, sampler = instantiate(config["schedule"]), instantiate(config["sampler"])
    try:
        levels = schedule.grid(sampler.steps, sampler.spacing)
    except ValueError as error:
        found.append(Problem("sampler.steps", str(error)))
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
    logger = config["logger"]
    wants_wandb = logger["_target_"].endswith(".wandb") and logger.get("mode") != "offline"
    if wants_wandb and not wandb_credentials():
        found.append(
            Problem(
                "logger",
                "Weights & Biases has no credentials here: run `wandb login`, or set "
                "WANDB_API_KEY, or use logger.mode=offline, or logger=tensorboard",
            )
        )
    return found


def train(config: dict[str, Any]) -> None:
    """Train the run in Hydra's output directory, and say where its results are."""
    import torch

    from unnoise.training.checkpoints import checkpoints, step_of
    from unnoise.training.launch import Experiment, fit

    run_dir = Path(HydraConfig.get().runtime.output_dir)
    checkpoint = next(reversed(checkpoints(run_dir)), None) if config["resume"] else None
    shown = _short(run_dir)
    if checkpoint is not None:
        print(f"resuming {shown} at step {step_of(checkpoint)}")
    elif config["resume"]:
        print("resume: no earlier run of this configuration, starting at step 0")
    run_dir.joinpath("config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(config)))
    torch.manual_seed(config["seed"])
    experiment = Experiment(**{key: instantiate(value) for key, value in config.items()})
    started = time.monotonic()
    results = fit(experiment, config, run_dir, checkpoint)
    minutes, seconds = divmod(int(time.monotonic() - started), 60)
    print(f"\n{experiment.name}: done in {minutes} min {seconds:02d} s")
    for name, path in results.items():
        print(f"  {name:<16} {_short(path)}")
    print(f"  {'draw more':<16} unnoise-sample run={shown}")


def run_directory(*, _root_: DictConfig) -> str:
    """``outputs/<name>/<time>_<digest>``; when resuming, the newest such directory there is.

    The digest is of the config without what does not change the results.
    """
    name, resume = _root_.name, _root_.resume
    if isinstance(resume, str):
        return resume
    config: Any = OmegaConf.to_container(_root_, resolve=False)
    fixed = {key: config[key] for key in config if key not in VOLATILE}
    fixed["data"].pop("root", None)
    digest = hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()[:8]
    if resume:
        earlier = sorted((OUTPUTS / name).glob(f"*_{digest}"))
        if earlier:
            return str(earlier[-1])
    return str(OUTPUTS / name / f"{time.strftime('%Y-%m-%d_%H-%M-%S')}_{digest}")


def sweep_directory(*, _root_: DictConfig) -> str:
    """The run directory of a sweep's job, below Hydra's sweep directory."""
    return os.path.relpath(run_directory(_root_=_root_), OUTPUTS)


def _short(path: Path) -> str:
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


OmegaConf.register_new_resolver("run_directory", run_directory, replace=True)
OmegaConf.register_new_resolver("sweep_directory", sweep_directory, replace=True)
