"""From an experiment to a finished run directory."""

import logging
import time
import warnings
from pathlib import Path
from typing import Any, Literal

import torch

from unnoise.training import loggers, manifest
from unnoise.training.callbacks import Progress
from unnoise.training.checkpoints import DurableCheckpointIO, checkpoints, step_of
from unnoise.training.data_module import ImageDataModule
from unnoise.training.diffusion_module import DiffusionModule
from unnoise.training.experiment import Experiment
from unnoise.training.loggers import JsonLines


def fit(
    experiment: Experiment, config: dict[str, Any], run_dir: Path, checkpoint: Path | None
) -> dict[str, Path]:
    """Train, from ``checkpoint`` on if there is one; everything the run leaves is in ``run_dir``.

    Returns:
        What a person wants to open, by name.
    """
    _quieten_lightning()
    module = DiffusionModule(
        experiment.model(),
        experiment.objective,
        experiment.times,
        experiment.optimizer,
        ema_decay=experiment.ema_decay,
        seed=experiment.seed,
        max_steps=experiment.max_steps,
        condition_dropout=experiment.condition_dropout,
        warmup_steps=experiment.warmup_steps,
        lr_decay=experiment.lr_decay,
        gradient_clip=experiment.gradient_clip,
        config=config,
    )
    if experiment.compile:
        module.model.denoiser.network.compile()
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
        callbacks=[*experiment.callbacks.values(), Progress(experiment.name, metrics)],
        plugins=[DurableCheckpointIO()],
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
        record = manifest.opened(run_dir, experiment, data, trainer, step)
        loggers.begin(trainer, config, record, step)
    begun = time.monotonic()
    try:
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    except BaseException as caught:
        error = caught
        raise
    finally:
        if trainer.is_global_zero:
            took = time.monotonic() - begun
            record = manifest.closed(run_dir, record, trainer, took, metrics.times(), error)
            loggers.end(trainer, record)
    return _results(run_dir)


def _quieten_lightning() -> None:
    """Leave out what Lightning says of itself, and warnings that do not apply here."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers",
        ".*treespec, LeafSpec.*",
        ".*lr_scheduler.step.*",
    ):
        warnings.filterwarnings("ignore", message)


def _accelerator(experiment: Experiment) -> str:
    """What the trainer is going to use, as far as it matters for the precision."""
    asked = getattr(experiment.trainer, "keywords", {}).get("accelerator", "auto")
    return str(asked) if asked != "auto" else "gpu" if torch.cuda.is_available() else "cpu"


def lightning_precision(
    precision: Literal["auto", "fp32", "bf16", "fp16"], accelerator: str
) -> str:
    """Lightning's name; "auto" is bf16 autocast where the accelerator is fast at it, else fp32."""
    if precision != "auto":
        return {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}[precision]
    if accelerator in ("gpu", "cuda"):
        fast = torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)
    else:
        fast = accelerator == "cpu" and "avx512_bf16" in _cpu_flags()
    return "bf16-mixed" if fast else "32-true"


def _cpu_flags() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""


def _results(run_dir: Path) -> dict[str, Path]:
    grids = sorted((run_dir / "samples").glob("step_*.png"))
    found = {
        "sample grid": grids[-1] if grids else None,
        "denoising": run_dir / "samples" / "denoising.gif",
        "forward process": run_dir / "samples" / "forward_process.png",
        "metrics": run_dir / "metrics.jsonl",
        "checkpoint": next(reversed(checkpoints(run_dir)), None),
    }
    return {name: path for name, path in found.items() if path is not None and path.exists()}
