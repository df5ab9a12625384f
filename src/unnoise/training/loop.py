"""From an experiment to a finished run directory."""

import logging
import time
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from lightning import Trainer
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment

from unnoise.distributed import group as ranks
from unnoise.distributed.devices import count
from unnoise.distributed.environment import place
from unnoise.distributed.precision import lightning_precision
from unnoise.files import write_durably
from unnoise.runs import manifest
from unnoise.runs.checkpoints import checkpoints, step_of
from unnoise.runs.lock import held
from unnoise.training.callbacks.checkpoints import DurableCheckpointIO, NotFinite
from unnoise.training.callbacks.nan_guard import BadNumbers, RollBack
from unnoise.training.callbacks.progress import Progress
from unnoise.training.callbacks.stop import Stop
from unnoise.training.data_module import ImageDataModule
from unnoise.training.logging import record as loggers
from unnoise.training.logging.jsonl import JsonLines
from unnoise.training.logging.messages import say
from unnoise.training.recipe import Recipe


def fit(
    experiment: Recipe,
    config: dict[str, Any],
    run_dir: Path | None,
    checkpoint: Path | None,
    origin: dict[str, Any] | None = None,
) -> Path:
    """Train, from ``checkpoint`` on if there is one; everything the run leaves is in ``run_dir``.

    Every rank of a run calls it. Rank 0 decides on run directory and checkpoint; the others may
    leave them out.

    Args:
        experiment: what is trained.
        config: what the experiment was made of, in plain containers.
        run_dir: the run directory, which no other run may hold.
        checkpoint: what the run goes on from.
        origin: what the manifest is to say of where the run came from.

    Returns:
        The run directory.

    Raises:
        ConfigMismatch: the ranks were started with different configurations.
        RunLocked: another run trains in the directory.
        NotFinite: too many steps had a loss or a gradient that is not finite, or a weight is not.
    """
    _quieten_lightning()
    devices, accelerator = devices_of(experiment), _accelerator(experiment)
    stop = Stop()
    meeting = ranks.together(devices, accelerator, experiment.rank_timeout)
    with stop.hearing(), meeting as cluster:
        run_dir, checkpoint = ranks.broadcast((run_dir, checkpoint))
        assert run_dir is not None
        ranks.check_same("configuration", config)
        with held(run_dir) if place().rank == 0 else nullcontext():
            if place().rank == 0:
                text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
                write_durably(run_dir / "config.yaml", lambda temporary: temporary.write_text(text))
            earlier = 0 if checkpoint is None else manifest.rollbacks(run_dir)
            rollbacks = ranks.broadcast(earlier)
            while True:
                try:
                    given = (checkpoint, origin or {}, cluster, rollbacks, stop)
                    _train(experiment, config, run_dir, *given)
                    return run_dir
                except manifest.Pruned:
                    return run_dir
                except RollBack as back:
                    checkpoint, rollbacks = back.checkpoint, rollbacks + 1


def devices_of(experiment: Recipe) -> int:
    """How many ranks train the run."""
    asked = getattr(experiment.trainer, "keywords", {})
    here = count(asked.get("devices", 1), _accelerator(experiment))
    return here * int(asked.get("num_nodes", 1))


def _train(
    experiment: Recipe,
    config: dict[str, Any],
    run_dir: Path,
    checkpoint: Path | None,
    origin: dict[str, Any],
    cluster: ClusterEnvironment,
    rollbacks: int,
    stop: Stop,
) -> None:
    module = experiment.module(config, rollbacks)
    if experiment.compile:
        experiment.network.compile()
    data = ImageDataModule(
        experiment.data,
        batch_size=experiment.batch_size,
        accumulate=experiment.accumulate,
        seed=experiment.seed,
        flip=experiment.flip,
        workers=experiment.workers,
        validation_images=experiment.validation_images,
    )
    metrics = JsonLines(run_dir / "metrics.jsonl")
    dashboards = experiment.logger(run_dir=run_dir, name=experiment.name)
    trainer = experiment.trainer(
        default_root_dir=run_dir,
        logger=[metrics, *dashboards],
        callbacks=stop.among([*experiment.callbacks.values(), Progress(experiment.name, metrics)]),
        plugins=[DurableCheckpointIO(), cluster],
        max_steps=experiment.max_steps,
        max_epochs=-1,
        precision=lightning_precision(experiment.precision, _accelerator(experiment)),
        val_check_interval=experiment.validate_every * experiment.accumulate,
        accumulate_grad_batches=experiment.accumulate,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    data.setup("fit")
    step = 0 if checkpoint is None else step_of(checkpoint)
    metrics.rewind(step)
    error: BaseException | None = None
    if trainer.is_global_zero:
        resumed = checkpoint is not None
        facts = _facts(experiment, data, trainer)
        device = trainer.strategy.root_device
        record = manifest.opened(run_dir, facts, device, step, origin, resumed)
        loggers.begin(trainer, config, record, step)
    begun = time.monotonic()
    try:
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    except NotFinite as caught:
        error = caught
        for guard in experiment.callbacks.values():
            if isinstance(guard, BadNumbers):
                error = guard.way_on(trainer, rollbacks, caught)
        raise error from None
    except BaseException as caught:
        error = caught
        raise
    finally:
        if trainer.is_global_zero:
            took = time.monotonic() - begun
            if isinstance(error, RollBack):
                manifest.add_rollback(record, trainer.global_step, step_of(error.checkpoint))
            try:
                record = manifest.closed(
                    run_dir, record, trainer.global_step, device, took, metrics.times(), error
                )
            except OSError as full:  # it must not hide what ended the training
                say(f"manifest.json does not say how the run ended: {full}")
            loggers.end(trainer, record)


def _facts(experiment: Recipe, data: ImageDataModule, trainer: Trainer) -> dict[str, Any]:
    """What the manifest says of the run itself."""
    return {
        "name": experiment.name,
        "seed": experiment.seed,
        "data": {
            "train_images": len(data.train_images),
            "fingerprint": data.train_images.fingerprint,
            "quarantined": [*data.train_images.quarantined, *data.validation_split.quarantined],
        },
        "parameters": sum(p.numel() for p in experiment.network.parameters()),
        "world_size": trainer.world_size,
        "precision": trainer.precision,
    }


def _quieten_lightning() -> None:
    """Leave out what Lightning says of itself, and warnings that do not apply here."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers",
        ".*treespec, LeafSpec.*",
        ".*srun.* command is available",
        ".*lr_scheduler.step.*",
    ):
        warnings.filterwarnings("ignore", message)


def _accelerator(experiment: Recipe) -> str:
    return str(getattr(experiment.trainer, "keywords", {}).get("accelerator", "auto"))


def results(run_dir: Path) -> dict[str, Path]:
    """What of a run a person wants to open, by name."""
    grids = sorted((run_dir / "samples").glob("step_*.png"))
    found = {
        "sample grid": grids[-1] if grids else None,
        "denoising": run_dir / "samples" / "denoising.gif",
        "forward process": run_dir / "samples" / "forward_process.png",
        "metrics": run_dir / "metrics.jsonl",
        "checkpoint": next(reversed(checkpoints(run_dir)), None),
    }
    return {name: path for name, path in found.items() if path is not None and path.exists()}
