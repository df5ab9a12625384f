"""From an experiment to a finished run directory."""

import logging
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from lightning import Trainer
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from torch import nn

from unnoise.config.problems import ConfigError
from unnoise.data import content
from unnoise.distributed import group as ranks
from unnoise.distributed.devices import count, lightning_precision
from unnoise.distributed.environment import place
from unnoise.files import write_text
from unnoise.runs import manifest
from unnoise.runs.identity import leaves
from unnoise.runs.layout import RunDirectory, shown, step_of
from unnoise.runs.lock import held
from unnoise.training import latents
from unnoise.training.callbacks.checkpoints import DurableCheckpointIO, NotFinite
from unnoise.training.callbacks.nan_guard import BadNumbers, RollBack
from unnoise.training.callbacks.progress import Progress
from unnoise.training.callbacks.stop import Stop
from unnoise.training.data_module import ImageDataModule
from unnoise.training.logging import record as loggers
from unnoise.training.logging.jsonl import JsonLines
from unnoise.training.recipe import Recipe, completed


def fit(
    recipe: Recipe,
    config: dict[str, Any],
    run_dir: Path | None,
    checkpoint: Path | None,
    origin: dict[str, Any] | None = None,
) -> Path:
    """Train, from ``checkpoint`` on if there is one; everything the run leaves is in ``run_dir``.

    Every rank of a run calls it, with the ``config`` of the recipe in plain containers. Rank 0
    decides on run directory, which it locks, and checkpoint; the others may leave them out.
    ``origin`` is for the manifest. Returns the run directory.

    Raises:
        ConfigError: the data are not those that the run was trained on.
        ConfigMismatch: the ranks were started with different configurations.
        RunLocked: another run trains in the directory.
        NotFinite: too many steps had a loss or a gradient that is not finite, or a weight is not.
    """
    _quieten_lightning()
    first, stop = place().rank == 0, Stop(recipe.until)
    meeting = ranks.together(devices_of(recipe), _accelerator(recipe), recipe.rank_timeout)
    with stop.hearing(), meeting as cluster:
        run_dir, checkpoint = ranks.broadcast((run_dir, checkpoint))
        assert run_dir is not None
        ranks.check_same("configuration", dict(leaves(config)))
        data, changed = ImageDataModule(recipe), None
        if first:
            data.facts, changed = _known(data, run_dir, checkpoint)
            if line := content.mapping(data.facts["classes"]):
                print(line, flush=True)
            for line in data.warnings():
                loggers.say(line)
        with held(run_dir) if first else nullcontext():
            if first:
                text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
                write_text(RunDirectory(run_dir).config, text)
                content.keep(RunDirectory(run_dir).content, data.splits)
            before = manifest.read(run_dir).get("rollbacks", []) if checkpoint else []
            rollbacks = ranks.broadcast(len(before))  # each changed the noise
            while True:
                trainer = _trainer(recipe, run_dir, cluster, stop)
                try:
                    _train(data, config, trainer, checkpoint, rollbacks, origin or {}, changed)
                    return run_dir
                except manifest.Pruned:
                    return run_dir
                except RollBack as back:
                    checkpoint, rollbacks, changed = back.checkpoint, rollbacks + 1, None


def _known(
    data: ImageDataModule, run_dir: Path, checkpoint: Path | None
) -> tuple[content.Facts, str | None]:
    """What the data hold, and what else than the run's if it goes on with them all the same."""
    names = data.source.class_names()
    if checkpoint is not None:
        then, kept = manifest.read(run_dir).get("data", {}), RunDirectory(run_dir).content
        changed = content.difference(then, kept, names, data.splits)
        if changed is not None and data.recipe.data_changed == "refuse":
            trained = f"data: {shown(run_dir)} was trained on others: {changed}"
            raise ConfigError(f"{trained}; data_changed=accept goes on with these")
    else:
        changed = None
    return content.facts(names, data.splits), changed


def devices_of(recipe: Recipe) -> int:
    """How many ranks train the run."""
    settings = getattr(recipe.trainer, "keywords", {})
    here = count(settings.get("devices", 1), _accelerator(recipe))
    return here * int(settings.get("num_nodes", 1))


def _accelerator(recipe: Recipe) -> str:
    return str(getattr(recipe.trainer, "keywords", {}).get("accelerator", "auto"))


def _trainer(recipe: Recipe, run_dir: Path, cluster: ClusterEnvironment, stop: Stop) -> Trainer:
    metrics = JsonLines(RunDirectory(run_dir).metrics)
    dashboard = recipe.logger(run_dir=run_dir, title=recipe.name)
    callbacks = [*recipe.callbacks.values(), Progress(recipe.name, metrics)]
    trainer: Trainer = recipe.trainer(
        default_root_dir=run_dir,
        logger=[each for each in (metrics, dashboard) if each is not None],
        callbacks=stop.among(callbacks),
        plugins=[DurableCheckpointIO(), cluster],
        max_steps=recipe.max_steps,
        max_epochs=-1,
        precision=lightning_precision(recipe.precision, _accelerator(recipe)),
        val_check_interval=recipe.validate_every * recipe.accumulate,
        accumulate_grad_batches=recipe.accumulate,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,  # Progress is one
    )
    return trainer


def _train(
    data: ImageDataModule,
    config: dict[str, Any],
    trainer: Trainer,
    checkpoint: Path | None,
    rollbacks: int,
    origin: dict[str, Any],
    changed: str | None,
) -> None:
    """Train to the end; RollBack is raised if training must continue from an earlier step."""
    recipe = data.recipe
    module = recipe.module(completed(type(recipe), config, vars(recipe)), rollbacks)
    module.data_facts = data.facts
    latents.prepare(module.model.codec, data, trainer, checkpoint is not None)
    if recipe.compile:
        recipe.network.compile()
    facts = {
        "name": recipe.name,
        "seed": recipe.seed,
        "data": data.facts,
        **{name: sum(p.numel() for p in part.parameters()) for name, part in _counted(recipe)},
        "world_size": trainer.world_size,
        "precision": trainer.precision,
    }
    recorded = _recorded(trainer, config, facts, checkpoint, origin, changed)
    with recorded if trainer.is_global_zero else nullcontext():
        try:
            trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        except NotFinite as error:
            guards = (each for each in recipe.callbacks.values() if isinstance(each, BadNumbers))
            raise next((g.way_on(trainer, rollbacks, error) for g in guards), error) from None


def _counted(recipe: Recipe) -> Iterator[tuple[str, nn.Module]]:
    """The networks whose parameters the manifest counts, by the keys that it has for them."""
    yield "parameters", recipe.network
    if (discriminator := getattr(recipe, "discriminator", None)) is not None:
        yield "discriminator_parameters", discriminator


@contextmanager
def _recorded(
    trainer: Trainer,
    config: dict[str, Any],
    facts: dict[str, Any],
    checkpoint: Path | None,
    origin: dict[str, Any],
    changed: str | None,
) -> Iterator[None]:
    """Open manifest and loggers at the checkpoint's step; finally write how training ended."""
    run_dir, device = Path(trainer.default_root_dir), trainer.strategy.root_device
    step, metrics = 0 if checkpoint is None else step_of(checkpoint), trainer.loggers[0]
    assert isinstance(metrics, JsonLines)
    metrics.rewind(step)
    since = next((row["time"] for row in metrics.rows()), None)
    resumed = checkpoint is not None
    record = manifest.opened(run_dir, facts, device, step, origin, resumed, changed, since)
    loggers.begin(trainer, config, record, step)
    begun, ended_by = time.monotonic(), None
    try:
        yield
    except BaseException as error:
        ended_by = error
        raise
    finally:
        took, step = time.monotonic() - begun, trainer.global_step
        if isinstance(ended_by, RollBack):
            back = {"from": step, "to": step_of(ended_by.checkpoint)}
            record["rollbacks"].append({"time": time.strftime(manifest.TIME), **back})
        try:
            times = [row["time"] for row in metrics.rows()]
            record = manifest.closed(run_dir, record, step, device, took, times, ended_by)
        except OSError as error:  # it must not hide what ended the training
            loggers.say(f"manifest.json does not say how the run ended: {error}")
        loggers.end(trainer, record)


def _quieten_lightning() -> None:
    """Silence Lightning's messages about itself, and warnings that do not apply here."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    ours = "does not have many workers|treespec, LeafSpec|srun.* command is available|in eval mode"
    warnings.filterwarnings("ignore", rf".*({ours}|lr_scheduler\.step)")
