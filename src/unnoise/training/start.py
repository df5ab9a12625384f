"""From a checked config to a run that trains, here or on the ranks of this machine."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unnoise.config.nodes import instantiate, resolve_target
from unnoise.config.problems import ConfigError
from unnoise.distributed.devices import lightning_precision, uses_gpu
from unnoise.distributed.environment import place, requeued
from unnoise.distributed.group import ConfigMismatch, RankLost, RankTimeout
from unnoise.distributed.launcher import RankFailed, train_on_ranks
from unnoise.networks.conditioning import TextConditioner
from unnoise.runs import lock, manifest
from unnoise.runs.checkpoints import newest_whole
from unnoise.runs.layout import RunDirectory, shown, step_of
from unnoise.training.recipe import Recipe, completed
from unnoise.untrusted import UnsafeFile


def start(
    config: dict[str, Any],
    run_dir: Path | None = None,
    checkpoint: Path | None = None,
    origin: dict[str, Any] | None = None,
) -> None:
    """Train as the rank that this process is, or start the ranks of this machine.

    Raises:
        ConfigError: something that the run needs is not there.
        SystemExit: the run ended early; the message says why.
    """
    from unnoise.training.callbacks.checkpoints import NotFinite, NotSaved
    from unnoise.training.loop import devices_of, fit

    recipe = prepared(config)
    if run_dir is not None:
        _require_room(recipe, run_dir)
    devices, nodes = devices_of(recipe), config["trainer"].get("num_nodes", 1)
    if run_dir is not None and place().rank == 0:
        accelerator = str(config["trainer"].get("accelerator", "auto"))
        print(_plan(recipe, devices, accelerator, run_dir), flush=True)
    known = ConfigMismatch, RankLost, RankTimeout, lock.RunLocked, NotFinite, NotSaved, UnsafeFile
    try:
        if devices == 1 or place().trains(nodes):
            fit(recipe, config, run_dir, checkpoint, origin)
            return
        paths = [None if path is None else str(path) for path in (run_dir, checkpoint)]
        train_on_ranks([config, *paths, origin], devices // nodes, nodes)
    except RankFailed as error:
        print(error, file=sys.stderr)
        sys.exit(error.status)
    except known as error:
        sys.exit(str(error))


def _plan(recipe: Recipe, devices: int, accelerator: str, run_dir: Path) -> str:
    """What is about to be done, in a line or two."""
    parameters = sum(parameter.numel() for parameter in recipe.network.parameters())
    precision = lightning_precision(recipe.precision, accelerator)
    short = {"32-true": "fp32", "bf16-mixed": "bf16", "16-mixed": "fp16"}[precision]
    kind = "GPU" if uses_gpu(accelerator) else "MPS" if accelerator == "mps" else "CPU"
    on = kind if devices == 1 else f"{devices} × {kind}"
    steps = f"{recipe.max_steps:,} steps of {recipe.batch_size} images"
    return f"{recipe.name}: {steps}, {parameters:,} parameters, {short} on {on}\n  {shown(run_dir)}"


def start_from(run_dir: Path, config: dict[str, Any], is_job: bool = False) -> Path | None:
    """The checkpoint to resume from; None at step 0. ``is_job``: the run is part of a sweep.

    Raises:
        ConfigError: there is a run in the directory that is not resumed, or that cannot be.
        RunLocked: another process trains in it.
    """
    goes_on = config["resume"] or requeued() or is_job
    lock.check(run_dir)
    try:
        checkpoint = newest_whole(run_dir) if goes_on else None
        manifest.read(run_dir)
    except ValueError as error:
        raise ConfigError(f"resume: {error}") from error
    if checkpoint is not None:
        print(f"resuming {shown(run_dir)} at step {step_of(checkpoint)}")
    elif config["resume"] and not is_job:
        print("resume: no checkpoint of an earlier run of this configuration, starting at step 0")
    elif RunDirectory(run_dir).config.exists() and not goes_on:
        here = shown(run_dir)
        raise ConfigError(f"{here} holds a run already; resume={here} goes on with it")
    return checkpoint


def prepared(config: dict[str, Any]) -> Recipe:
    """The recipe of a checked config; data, text encoder and extractors are fetched.

    Raises:
        ConfigError: a device, the data, a text encoder or an extractor is not there.
    """
    from unnoise.training.callbacks.quality import Quality

    _require_devices(config["trainer"])
    schema: Any = resolve_target(config["_target_"])
    with torch.device("meta"):  # only their shapes count
        objects = {key: instantiate(config[key]) for key in schema.givers if key != "data"}
    data = {"data": instantiate(config["data"])}
    torch.manual_seed(config["seed"])
    recipe: Recipe = instantiate(completed(schema, config, objects | data) | data)
    assert isinstance(recipe, Recipe)
    for part in recipe.conditioning.modules() if recipe.conditioning is not None else ():
        if isinstance(part, TextConditioner):
            with _needed("conditioning.encoder"):
                part.encoder.encode(["a picture"])
    if place().local_rank == 0:
        with _needed("data"):
            recipe.data.prepare()
    for key, load in recipe.needs():
        with _needed(key):
            load()
    for name, callback in recipe.callbacks.items() if place().rank == 0 else ():
        if isinstance(callback, Quality):
            with _needed(f"callbacks.{name}"):
                _ = callback.evaluator(source=recipe.data, device=torch.device("cpu")).extractor
    return recipe


def _require_devices(trainer: dict[str, Any]) -> None:
    """Raise ConfigError if this machine lacks devices of the trainer."""
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
        raise ConfigError(f"trainer.devices: {devices} wanted, but there {found} here")


def _require_room(recipe: Recipe, run_dir: Path) -> None:
    """Raise ConfigError if the disk has no room for one checkpoint: weights and their averages."""
    copies = 2 + len(recipe.ema_lengths)
    needed = copies * sum(parameter.nbytes for parameter in recipe.network.parameters())
    if isinstance(autoencoder := getattr(recipe, "autoencoder", None), nn.Module):
        needed += sum(parameter.nbytes for parameter in autoencoder.parameters())
    there = next(each for each in (run_dir, *run_dir.absolute().parents) if each.is_dir())
    if (free := shutil.disk_usage(there).free) < needed:
        takes = f"a checkpoint takes {needed / 1e6:.1f} MB at least"
        raise ConfigError(f"run directory: {there} has room for {free / 1e6:.1f} MB, but {takes}")


@contextmanager
def _needed(key: str) -> Iterator[None]:
    """Raise ConfigError if what a key needs is not there."""
    try:
        yield
    except (FileNotFoundError, ValueError) as error:
        raise ConfigError(f"{key}: {error}") from error
