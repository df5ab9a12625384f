"""unnoise-train: train a diffusion model as a config says."""

import dataclasses
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from unnoise.cli.command import run
from unnoise.cli.config import UNKNOWN, ConfigError, Problem, instantiate
from unnoise.cli.preflight import construction_problems, problems

if TYPE_CHECKING:
    from unnoise.networks.conditioning import Conditioner
    from unnoise.training.experiment import Experiment

OUTPUTS = Path("outputs")
LIGHTNING = ("callbacks", "logger", "trainer")
VOLATILE = (
    *("hydra", "name", "resume", "trainer", "logger"),
    *("workers", "accumulate", "validate_every", "validation_images"),
)
"""Keys that do not change what a run gives."""
DRAWING = ("sampler", "callbacks")
"""Keys that change what it draws and logs, but not what it trains: they do not hinder a resume."""
NAMELESS = ("hydra", "name", "resume", "logger")
"""Keys that do not tell one run directory from another."""


def _number(*names: str) -> int:
    """This process's, by the first of some environment variables that is there; alone it is 0."""
    return next((int(os.environ[name]) for name in names if name in os.environ), 0)


_RANK = _number("RANK", "LOCAL_RANK", "SLURM_PROCID")  # as Lightning looks for it
_LOCAL_RANK = _number("LOCAL_RANK", "SLURM_LOCALID")
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
    from unnoise.cli.rules import logger_rules, rules
    from unnoise.training.experiment import Experiment

    keys = [field.name for field in dataclasses.fields(Experiment)]
    quick = {key: UNKNOWN if key in LIGHTNING else value for key, value in config.items()}
    found = problems(quick, Experiment)
    right = set(config) - {problem.key.partition(".")[0] for problem in found}
    found += construction_problems(config, [k for k in ("network", "conditioning") if k in right])
    others = ("data", "schedule", "prediction", "objective", "times", "sampler")
    found += construction_problems(config, [k for k in others if k in right], device="cpu")
    if not found and isinstance(config["resume"], str):
        found += resume_problems(config)
    yield found or rules(config)

    slow = {key: config[key] if key in LIGHTNING else UNKNOWN for key in config if key in keys}
    found = problems(slow, Experiment)
    yield found or construction_problems(config, ["callbacks"], device="cpu") + logger_rules(config)


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


def _leaves(tree: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict):
        for name, value in tree.items():
            yield from _leaves(value, f"{key}.{name}" if key else str(name))
    else:
        yield key, tree


def train(config: dict[str, Any]) -> None:
    """Train the run in Hydra's output directory, and say where its results are."""
    import torch

    from unnoise.files import write_durably
    from unnoise.training.checkpoints import checkpoints, step_of
    from unnoise.training.experiment import Experiment
    from unnoise.training.launch import fit

    hydra = HydraConfig.get()
    run_dir = Path(hydra.runtime.output_dir)
    if hydra.mode == RunMode.MULTIRUN:
        _say(f"\njob {hydra.job.num}: {hydra.job.override_dirname}")
    checkpoint = next(reversed(checkpoints(run_dir)), None) if config["resume"] else None
    shown = _short(run_dir)
    if checkpoint is not None:
        _say(f"resuming {shown} at step {step_of(checkpoint)}")
    elif config["resume"]:
        _say("resume: no checkpoint of an earlier run of this configuration, starting at step 0")
    if hydra.mode == RunMode.MULTIRUN and config["trainer"].get("devices", 1) != 1:
        raise ConfigError("a sweep trains its jobs on one device each: set trainer.devices=1")
    torch.manual_seed(config["seed"])
    experiment = Experiment(**{key: instantiate(value) for key, value in config.items()})
    _load_text_encoder(experiment.conditioning)
    if _LOCAL_RANK == 0:
        try:
            experiment.data.prepare()
        except (FileNotFoundError, ValueError) as error:
            raise ConfigError(f"data: {error}") from error
    if _RANK == 0:
        if not config["resume"] and (run_dir / "config.yaml").exists():
            raise ConfigError(f"{shown} holds a run already; resume={shown} goes on with it")
        _find_extractors(experiment)
        text = OmegaConf.to_yaml(OmegaConf.create(config))
        write_durably(run_dir / "config.yaml", lambda temporary: temporary.write_text(text))
    started = time.monotonic()
    results = fit(experiment, config, run_dir, checkpoint)
    results = (_report(run_dir) if _RANK == 0 else {}) | results
    minutes, seconds = divmod(int(time.monotonic() - started), 60)
    _say(f"\n{experiment.name}: done in {minutes} min {seconds:02d} s")
    for name, path in results.items():
        _say(f"  {name:<16} {_short(path)}")
    _say(f"  {'draw more':<16} unnoise-sample run={shown}")


def _say(text: str) -> None:
    """Print, once however many processes there are."""
    if _RANK == 0:
        print(text)


def _report(run_dir: Path) -> dict[str, Path]:
    """Write the page of the run; that it could not be written does not undo the training."""
    from unnoise.report.page import write

    path = run_dir / "report.html"
    try:
        write(path, [run_dir])
    except Exception as error:
        print(f"warning: no report was written: {error!r}", file=sys.stderr)
        return {}
    return {"report": path}


def _find_extractors(experiment: "Experiment") -> None:
    """Before anything is run: one that only fails when it is read would be missed only by then."""
    import torch

    from unnoise.training.quality import Quality

    for name, callback in experiment.callbacks.items():
        if isinstance(callback, Quality):
            try:
                callback.find(experiment.data, torch.device("cpu"))
            except (FileNotFoundError, ValueError) as error:
                raise ConfigError(f"callbacks.{name}: {error}") from error


def _load_text_encoder(conditioner: "Conditioner | None") -> None:
    """Before anything is run: a text encoder that is not there would be missed only by then."""
    from unnoise.networks.text import TextConditioner

    for part in conditioner.modules() if conditioner is not None else ():
        if isinstance(part, TextConditioner):
            try:
                part.encoder.encode(["a picture"])
            except ValueError as error:
                raise ConfigError(f"conditioning.encoder: {error}") from error


def run_directory(*, _root_: DictConfig) -> str:
    """``outputs/<name>/<time>_<digest>-<digest>``; when resuming, the newest such run there is.

    The first digest is of what decides what is trained, the second of what decides what is drawn,
    followed by one of the rest, so that each job of a sweep has a directory of its own. A run is
    resumed that agrees in all, or else in the first two, or else in the first.
    """
    if isinstance(_root_.resume, str):
        return _root_.resume
    config: Any = OmegaConf.to_container(_root_, resolve=False)
    home = OUTPUTS / _root_.name
    trained = _digest(_fixed(config))[:8]
    drawn = _digest({key: config[key] for key in DRAWING})[:4]
    rest = _digest({k: v for k, v in config.items() if k in VOLATILE and k not in NAMELESS})[:4]
    whole = f"{trained}-{drawn}{rest}"
    for digests in (whole, f"{trained}-{drawn}*", f"{trained}-*") if _root_.resume else ():
        if earlier := sorted(home.glob(f"*_{digests}/checkpoints/step_*.ckpt")):
            return str(earlier[-1].parents[1])
    return str(home / f"{_STARTED}_{whole}")


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def sweep_directory(*, _root_: DictConfig) -> str:
    """The run directory of a sweep's job, below Hydra's sweep directory."""
    return os.path.relpath(run_directory(_root_=_root_), OUTPUTS)


def _short(path: Path) -> str:
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


OmegaConf.register_new_resolver("run_directory", run_directory, replace=True)
OmegaConf.register_new_resolver("sweep_directory", sweep_directory, replace=True)
