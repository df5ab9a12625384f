"""What must hold between the parts of a run's config, each of which is right by itself.

A rule names the parts that it is about as its parameters: built objects (of a partial node the
``functools.partial``) or plain values. It is applied where all of these are right.
"""

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from unnoise.config.problems import UNKNOWN, Problem, did_you_mean
from unnoise.data.source import ImageSource
from unnoise.diffusion.consistency import ConsistencyLoss
from unnoise.diffusion.denoiser import Prediction
from unnoise.diffusion.objectives import HybridLoss, Objective, VariationalBound
from unnoise.diffusion.samplers import Sampler
from unnoise.diffusion.schedules import NoiseSchedule
from unnoise.diffusion.schedules.base import check_prediction
from unnoise.diffusion.weights import Weight
from unnoise.distributed.devices import count, slow_bf16
from unnoise.networks.conditioning import ClassConditioner, Conditioner

Rule = Callable[..., Iterator[Problem]]
Callbacks = Mapping[str, Any]
MOST_OF_FEW = 0.5  # EDM's levels under L_simple, with a network that predicts x0, have 0.24


def broken(rules: Iterable[Rule], parts: Mapping[str, Any]) -> list[Problem]:
    """What the rules find wrong; ``parts`` holds what is right by itself."""
    found: list[Problem] = []
    for rule in rules:
        names = list(inspect.signature(rule).parameters)
        if all(parts.get(name, UNKNOWN) is not UNKNOWN for name in names):
            found += rule(**{name: parts[name] for name in names})
    return found


# Of every family


def batches(trainer: functools.partial[Any], accumulate: int, batch_size: int) -> Iterator[Problem]:
    """An optimizer step's images are shared out evenly."""
    settings = getattr(trainer, "keywords", {})
    nodes, wanted = settings.get("num_nodes", 1), settings.get("devices", 1)
    try:
        devices = count(wanted, str(settings.get("accelerator", "auto")))
    except ValueError:
        message = "is a number, a list of numbers, auto or -1"
        yield Problem("trainer.devices", f"{message}, not {wanted!r}")
        return
    parts = accumulate * devices * nodes
    if devices < 1 or nodes < 1:
        key, value = ("devices", devices) if devices < 1 else ("num_nodes", nodes)
        yield Problem(f"trainer.{key}", f"{value} of them can train nothing")
    elif batch_size % parts:
        of = f"accumulate {accumulate} × {devices} trainer.devices × {nodes} trainer.num_nodes"
        yield Problem("batch_size", f"{batch_size} does not divide into {parts} parts ({of})")


def fused(precision: str, optimizer: functools.partial[Any]) -> Iterator[Problem]:
    """Under fp16 gradients are clipped before the optimizer scales them back."""
    if precision == "fp16" and getattr(optimizer, "keywords", {}).get("fused"):
        message = "must be false with precision=fp16: clipping could not see it"
        yield Problem("optimizer.fused", message)


def bf16(precision: str, trainer: functools.partial[Any]) -> Iterator[Problem]:
    """bf16 is for devices that are fast at it."""
    accelerator = str(getattr(trainer, "keywords", {}).get("accelerator", "auto"))
    if slow := slow_bf16(precision, accelerator):
        yield Problem("precision", slow, "warning")


def enough_data(data: ImageSource, batch_size: int) -> Iterator[Problem]:
    """The data is there, and fills a batch."""
    try:
        images = data.check()
    except (FileNotFoundError, ValueError, ImportError) as error:
        yield Problem("data", str(error))
        return
    if images is not None and batch_size > images:
        yield Problem("batch_size", f"{batch_size} is more than the data ({images} images)")


def conditions(
    data: ImageSource, conditioning: Conditioner | None, flip: bool
) -> Iterator[Problem]:
    """The data has what the conditioner reads."""
    if conditioning is None:
        return
    if "caption" in conditioning.reads and not data.captioned:
        yield Problem("conditioning", "reads captions, which this data does not have")
    elif "caption" in conditioning.reads and flip:
        message = "mirrors pictures, but not what captions may say of left and right"
        yield Problem("flip", message, "warning")
    for part in conditioning.modules():
        if isinstance(part, ClassConditioner):  # a config may say how many there are
            classes = data.classes if hasattr(data, "classes") else len(data.class_names())
            if classes and part.classes != classes:
                message = f"knows {part.classes} classes, but the data has {classes}"
                yield Problem("conditioning", message)
        elif isinstance(part, Conditioner) and part.reads == ("image",):
            keep = torch.ones(1, dtype=torch.bool, device="meta")
            image = torch.zeros(1, *data.shape, dtype=torch.uint8, device="meta")
            try:
                part({"image": image}, keep)
            except ValueError as error:
                yield Problem("conditioning", str(error))


def present(callbacks: Callbacks) -> Iterator[Problem]:
    """Each is a callback; one that is not wanted is removed."""
    for name, callback in callbacks.items():
        if callback is None:
            yield Problem(f"callbacks.{name}", f"null is no callback: remove it, ~callbacks.{name}")
        elif not hasattr(callback, "on_train_batch_end"):
            several = isinstance(callback, dict) and f"; choose all of {[*callback]}: callbacks=..."
            yield Problem(f"callbacks.{name}", f"is no callback{several or ''}")


def extractors(data: ImageSource, callbacks: Callbacks) -> Iterator[Problem]:
    """Each measurement's metrics exist, and its extractor, as far as shows without reading it."""
    from unnoise.evaluation.estimates import metric_problems
    from unnoise.evaluation.extractors.find import NAMES

    own, known = data.extractor or "inception", ("auto", "inception", *NAMES)
    for key, callback in callbacks.items():
        if not (settings := getattr(getattr(callback, "evaluator", None), "keywords", {})):
            continue
        name, weights = settings["extractor_name"], settings["weights"]
        if name not in known and not Path(name).is_file():
            near = did_you_mean(name, known)
            message = f"there is no extractor {name}{near} ({', '.join(known)}, or a file)"
            yield Problem(f"callbacks.{key}.extractor", message)
        name = own if name == "auto" else name
        for message in metric_problems(settings["metrics"], name if name in known else None):
            yield Problem(f"callbacks.{key}.metrics", message)
        if weights is not None and name != "inception":
            message = f"are those of inception, but the extractor is {name}"
            yield Problem(f"callbacks.{key}.weights", message)
        elif weights is not None and not Path(weights).expanduser().is_file():
            yield Problem(f"callbacks.{key}.weights", f"there is no file {weights}")


def one_family(sampler: Any, callbacks: Callbacks) -> Iterator[Problem]:
    """What draws or measures while a run trains is for its family."""
    for name, callback in callbacks.items():
        if getattr(callback, "needs_levels", False) and not isinstance(sampler, Sampler):
            yield Problem(f"callbacks.{name}", "needs noise levels, which this family has not")
        for key in ("sampler", "final"):
            own = getattr(callback, key, sampler)
            if own is not UNKNOWN and type(own) is not type(sampler):
                ours, runs = type(own).__name__, type(sampler).__name__
                message = f"is a {ours}, but the run's sampler is a {runs}"
                yield Problem(f"callbacks.{name}.{key}", message)


def credentials(logger: Callable[..., Any]) -> Iterator[Problem]:
    """A dashboard must not ask for credentials in the middle of a run."""
    from unnoise.training.logging.wandb import NO_CREDENTIALS, wandb_credentials

    mode = inspect.signature(logger).parameters.get("mode")
    if mode is not None and mode.default == "online" and not wandb_credentials():
        yield Problem("logger", f"{NO_CREDENTIALS}, or logger=tensorboard")


# Of diffusion models


def levels(schedule: NoiseSchedule, sampler: Sampler, callbacks: Callbacks) -> Iterator[Problem]:
    """The schedule has the levels that are sampled at."""
    for key, each in _samplers(sampler, callbacks):
        yield from _grid(f"{key}.steps", schedule, each.steps, each.spacing)
    for name, callback in callbacks.items():
        if isinstance(steps := getattr(callback, "steps", None), int):
            yield from _grid(f"callbacks.{name}.steps", schedule, steps)


def _grid(key: str, schedule: NoiseSchedule, *of: Any) -> Iterator[Problem]:
    try:
        schedule.grid(*of)
    except ValueError as error:
        yield Problem(key, str(error))


def noisiest(schedule: NoiseSchedule) -> Iterator[Problem]:
    """Sampling starts from pure noise."""
    last = schedule.grid(1, "uniform")[0]
    left = float(last.alpha**2 / (last.alpha**2 + last.sigma**2))
    if left > 0.01:
        yield Problem(
            "schedule",
            f"does not reach noise: {left:.1%} of the picture's power is left at the last "
            "level, but sampling starts from pure noise; use more levels T or a larger beta",
            "warning",
        )


def weights(
    schedule: NoiseSchedule, prediction: Prediction, objective: Objective
) -> Iterator[Problem]:
    """The prediction exists at every level, and no few levels have all of the weight.

    An error of the network's output is one of out·F in x0, which L_simple weighs with the SNR.
    """
    try:
        check_prediction(prediction, schedule)
    except ValueError as error:
        yield Problem("prediction", str(error))
        return
    if isinstance(objective, VariationalBound | HybridLoss) and not schedule.even:
        yield Problem(
            "objective",
            f"takes all levels alike, whichever {type(schedule).__name__} draws more often",
            "warning",
        )
    if isinstance(objective, VariationalBound | ConsistencyLoss):
        return
    weight = getattr(objective, "weight", None)
    weigh = weight if isinstance(weight, Weight) else (lambda snr: snr)
    u = torch.linspace(1e-4, 1 - 1e-4, 10_000)
    level = schedule.level(schedule.sample_times(u))
    out = prediction.coefficients(level.alpha, level.sigma)[1]
    shares = weigh((level.alpha / level.sigma) ** 2) * out**2
    few = float(shares.topk(len(u) // 1000).values.sum() / shares.sum())
    if few > MOST_OF_FEW:
        yield Problem(
            "objective",
            f"gives one in a thousand training times {few:.0%} of the weight of the network's "
            "errors: use another objective with this prediction and schedule",
        )
    if schedule.grid(1)[0].alpha == 0 and float(weigh(torch.zeros(()))) == 0:
        yield Problem(
            "objective",
            "has weight 0 where nothing is left of the picture, so that the level at which "
            "sampling starts is not trained: use v, velocity or x0",
            "warning",
        )


def guidance(
    sampler: Sampler,
    callbacks: Callbacks,
    conditioning: Conditioner | None,
    condition_dropout: float,
) -> Iterator[Problem]:
    """Guidance needs a condition, and a model that was also trained without."""
    for key, each in _samplers(sampler, callbacks):
        if each.guidance.scale == 1:
            continue
        if conditioning is None:
            needs = "a condition to guide to: choose a conditioning"
        elif condition_dropout == 0:
            needs = "a model that can do without: set condition_dropout above 0"
        else:
            continue
        yield Problem(f"{key}.guidance.scale", f"guidance needs {needs}")


def variance(
    learned_variance: bool, objective: Objective, sampler: Sampler, callbacks: Callbacks
) -> Iterator[Problem]:
    """A variance that is sampled from must be learned, and one that is learned needs its loss."""
    learned = "set learned_variance=true (and an objective that trains it: hybrid or vlb)"
    for key, each in _samplers(sampler, callbacks):
        if getattr(each.stepper, "variance", None) == "learned" and not learned_variance:
            yield Problem(f"{key}.stepper.variance", f"nothing learns it: {learned}")
    if objective.trains_variance and not learned_variance:
        yield Problem("objective", f"trains a variance that the network lacks: {learned}")
    if learned_variance and not objective.trains_variance:
        yield Problem("objective", "leaves the learned variance untrained: use hybrid or vlb")


def _samplers(sampler: Sampler, callbacks: Callbacks) -> Iterator[tuple[str, Sampler]]:
    """All samplers of a config, but for those in callbacks that are the run's own."""
    yield "sampler", sampler
    for name, callback in callbacks.items():
        for key in ("sampler", "final"):
            own = getattr(callback, key, None)
            if isinstance(own, Sampler) and not _alike(own, sampler):
                yield f"callbacks.{name}.{key}", own


def _alike(one: Any, other: Any) -> bool:
    """Whether two objects were built from the same arguments."""
    if not hasattr(one, "__dict__") or type(one) is not type(other):
        return bool(one == other)
    return all(_alike(value, vars(other)[name]) for name, value in vars(one).items())


SHARED: tuple[Rule, ...] = (
    *(batches, fused, bf16, enough_data, conditions, present, extractors, one_family, credentials),
)
DIFFUSION: tuple[Rule, ...] = (levels, noisiest, weights, guidance, variance)
