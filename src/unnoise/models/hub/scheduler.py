"""Noise levels and samplers: the configs of diffusers' schedulers, and our nodes."""

import math
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import torch

from unnoise.diffusion.denoiser import (
    Clip,
    DynamicThreshold,
    EpsilonPrediction,
    VPrediction,
    X0Prediction,
)
from unnoise.diffusion.samplers import DDIM, Ancestral, Euler, Sampler
from unnoise.diffusion.schedules import DiscreteSchedule, cosine, linear, quadratic
from unnoise.models.diffusion import DiffusionModel
from unnoise.models.hub.keys import Keys

PREDICTIONS = {"epsilon": EpsilonPrediction, "v_prediction": VPrediction, "sample": X0Prediction}
VARIANCES = {"beta": "fixed_large", "posterior": "fixed_small", "learned": "learned_range"}
SPACINGS = {"uniform": "linspace", "leading": "leading", "trailing": "trailing"}
NAMES = {"linear": linear, "scaled_linear": quadratic}
COSINE = "squaredcos_cap_v2"
UNBOUNDED = 1e6
"""Dynamic thresholds have no upper bound here; a scheduler wants one."""
MOST_LEVELS = 100_000
LEVELS: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "trained_betas": None,
    "beta_schedule": "linear",
    "prediction_type": "epsilon",
    "rescale_betas_zero_snr": False,
}
DRAWING: dict[str, Any] = {
    "clip_sample": True,
    "clip_sample_range": 1.0,
    "thresholding": False,
    "dynamic_thresholding_ratio": 0.995,
    "sample_max_value": 1.0,
    "timestep_spacing": "leading",
    "steps_offset": 0,
    "variance_type": "fixed_small",
    "set_alpha_to_one": True,
}
OTHERS = tuple(
    f"{name}Scheduler"
    for name in (
        *("PNDM", "LMSDiscrete", "EulerDiscrete", "EulerAncestralDiscrete", "HeunDiscrete"),
        *("DPMSolverMultistep", "DPMSolverSinglestep", "UniPCMultistep", "DEISMultistep"),
        "KDPM2Discrete",
    )
)
"""Whose models are like DDPM's, but which draw as nothing here does."""
SCHEDULES = "unnoise.diffusion.schedules."
CLIPPED = (
    "DDIM goes on with ε of the clipped x0 here, as in a pipeline that is called with "
    "use_clipped_model_output=True; without it the pipeline keeps ε as predicted"
)
DDIM_STEPS = 50


def scheduler_faults(model: DiffusionModel, sampler: Sampler, guided: bool) -> Iterator[str]:
    """What of a model's levels, prediction and sampler DDPMScheduler and DDIMScheduler lack.

    A pipeline that is ``guided`` guides by captions.
    """
    schedule, stepper = model.schedule, sampler.stepper
    if type(model.denoiser.prediction) not in PREDICTIONS.values():
        kind = type(model.denoiser.prediction).__name__
        yield f"prediction: {kind} is none of epsilon, v_prediction and sample"
    if not isinstance(schedule, DiscreteSchedule):
        kind = type(schedule).__name__
        yield f"schedule: {kind} is continuous; these schedulers have discrete levels"
        return
    guidance = sampler.guidance
    if guidance.scale != 1 and not guided:
        yield "sampler.guidance: these pipelines guide by nothing: use guidance 1"
    if guided and (guidance.scale < 1 or guidance.interval is not None or guidance.rescale):
        yield "sampler.guidance: only a scale of 1 and more, at all levels, without rescale"
    if guided and sampler.spacing == "leading":
        yield "sampler.spacing: StableDiffusionPipeline starts leading a level later: use trailing"
    if not isinstance(stepper, Ancestral | DDIM | Euler):
        kind = type(stepper).__name__
        way = "sampler=ddpm sampler.spacing=uniform or sampler=ddim sampler.spacing=trailing"
        yield f"sampler: {kind} is neither DDPM's nor DDIM's step: give {way}"
        return
    if sampler.spacing not in SPACINGS:
        yield f"sampler.spacing: {sampler.spacing} is not among {', '.join(SPACINGS)}"
        return
    learned, variance = model.denoiser.learned_variance, getattr(stepper, "variance", None)
    if variance == "none":
        yield "sampler.stepper.variance: DDPMScheduler always adds noise: beta, posterior, learned"
    if learned and variance != "learned":
        yield "learned_variance: only sampler=ddpm sampler.stepper.variance=learned can be drawn"
    steps = sampler.steps or schedule.T
    if isinstance(stepper, Ancestral):
        if sampler.spacing == "trailing":
            yield "sampler.spacing: DDPMScheduler adds noise after the last step of trailing"
        return
    times, length = schedule.times(steps, sampler.spacing).tolist(), schedule.T // steps
    jumps = {here - there for here, there in pairwise(times)}
    if not jumps <= {length} or times[-1] >= length:
        yield (
            f"sampler.spacing: DDIMScheduler takes each step to be ⌊T/steps⌋ = {length} levels "
            f"long, which {sampler.spacing} with {steps} steps of T={schedule.T} is not: use "
            "spacing leading, or trailing with steps that divide T"
        )


class Scheduler(NamedTuple):
    """The name of a scheduler's class, its config, and how its pipeline is to be called."""

    name: str
    config: dict[str, Any]
    call: dict[str, Any]


def scheduler_of(model: DiffusionModel, sampler: Sampler) -> Scheduler:
    """That of a model and a sampler without ``scheduler_faults``."""
    schedule, stepper, threshold = model.schedule, sampler.stepper, sampler.threshold
    assert isinstance(schedule, DiscreteSchedule)
    if not model.codec.bounded:
        threshold = None
    kinds = {kind: name for name, kind in PREDICTIONS.items()}
    config: dict[str, Any] = {
        **_levels(schedule),
        "num_train_timesteps": schedule.T,
        "prediction_type": kinds[type(model.denoiser.prediction)],
        "clip_sample": isinstance(threshold, Clip),
        "clip_sample_range": 1.0,
        "thresholding": isinstance(threshold, DynamicThreshold),
        "timestep_spacing": SPACINGS[sampler.spacing],
        "steps_offset": 0,
        "rescale_betas_zero_snr": False,
    }
    if isinstance(threshold, DynamicThreshold):
        config["dynamic_thresholding_ratio"] = threshold.quantile
        config["sample_max_value"] = UNBOUNDED
    call: dict[str, Any] = {"num_inference_steps": sampler.steps or schedule.T}
    if isinstance(stepper, Ancestral):
        config["variance_type"] = VARIANCES[stepper.variance]
        return Scheduler("DDPMScheduler", config, call)
    call["eta"] = getattr(stepper, "eta", 0.0)
    if threshold is not None:
        call["use_clipped_model_output"] = True  # ε from the clipped x0, as here
    return Scheduler("DDIMScheduler", config | {"set_alpha_to_one": True}, call)


def _levels(schedule: DiscreteSchedule) -> dict[str, Any]:
    """By name where one gives exactly these β, else each β."""
    first, last = (float(f"{float(schedule.betas[i]):.12g}") for i in (0, -1))
    for name, make in NAMES.items():
        if 0 < first <= last < 1 and torch.equal(
            make(schedule.T, first, last).betas, schedule.betas
        ):
            return {"beta_schedule": name, "beta_start": first, "beta_end": last}
    if torch.equal(cosine(schedule.T).betas, schedule.betas):
        return {"beta_schedule": COSINE}
    return {"trained_betas": schedule.betas.tolist()}


def scheduler_node_faults(config: Mapping[str, Any], file: str) -> Iterator[str]:
    """What of a scheduler's config cannot be done here, as far as it decides what was trained."""
    name = config.get("_class_name")
    if name not in ("DDPMScheduler", "DDIMScheduler", *OTHERS):
        known = ", ".join(("DDPMScheduler", "DDIMScheduler", *OTHERS))
        yield f"{file}: the scheduler {name} is not known here; these are: {known}"
        return
    if name not in OTHERS:  # of others only the levels are read
        yield from Keys(LEVELS | DRAWING).faults(config, file)
    found = Keys(LEVELS | DRAWING).filled(config)
    if found["prediction_type"] not in PREDICTIONS:
        kinds = ", ".join(PREDICTIONS)
        yield f"{file}: prediction_type is {found['prediction_type']!r}, but here only {kinds}"
    T = found["num_train_timesteps"]
    if type(T) is not int or not 1 <= T <= MOST_LEVELS:
        yield f"{file}: num_train_timesteps is {T!r}, not in 1 … {MOST_LEVELS}"
    ranges = {"sample_max_value": (0, math.inf), "dynamic_thresholding_ratio": (0, 1)}
    for key, (low, high) in ranges.items() if found["thresholding"] else ():
        if type(found[key]) not in (int, float) or not low < found[key] <= high:
            yield f"{file}: {key} is {found[key]!r}, not in ({low}, {high}]"
    betas = found["trained_betas"]
    if betas is None and found["beta_schedule"] not in (*NAMES, COSINE):
        names = ", ".join((*NAMES, COSINE))
        yield f"{file}: beta_schedule is {found['beta_schedule']!r}, but here only {names}"
    elif betas is not None and not _is_betas(betas, found["num_train_timesteps"]):
        yield f"{file}: trained_betas are not num_train_timesteps numbers in (0, 1]"
    ends = found["beta_start"], found["beta_end"]
    if not all(isinstance(end, int | float) and 0 < end < 1 for end in ends):
        yield f"{file}: beta_start and beta_end are {ends}, not in (0, 1)"
    if found["variance_type"] not in VARIANCES.values():
        kinds = ", ".join(VARIANCES.values())
        yield f"{file}: variance_type is {found['variance_type']!r}, but here only {kinds}"
    if found["timestep_spacing"] not in SPACINGS.values():
        yield f"{file}: timestep_spacing is {found['timestep_spacing']!r}: unknown"
    if found["clip_sample"] and found["clip_sample_range"] != 1:
        yield f"{file}: clip_sample_range is {found['clip_sample_range']!r}, but here only 1"


def _is_betas(betas: Any, T: Any) -> bool:
    numbers = isinstance(betas, list) and all(isinstance(b, int | float) for b in betas)
    return numbers and len(betas) == T and all(0 < b <= 1 for b in betas)


class Drawing(NamedTuple):
    """The nodes that a scheduler's config stands for, and what is drawn otherwise than there."""

    schedule: dict[str, Any]
    prediction: dict[str, Any]
    sampler: dict[str, Any]
    learned_variance: bool
    remarks: list[str]


def drawing_of(config: Mapping[str, Any], bounded: bool) -> Drawing:
    """That of a config without ``scheduler_node_faults``; a latent is not ``bounded``."""
    found, name = Keys(LEVELS | DRAWING).filled(config), config["_class_name"]
    T, ends = found["num_train_timesteps"], {"beta_1": "beta_start", "beta_T": "beta_end"}
    if found["trained_betas"] is not None:
        schedule = {"_target_": f"{SCHEDULES}given", "betas": found["trained_betas"]}
    elif found["beta_schedule"] == COSINE:
        schedule = {"_target_": f"{SCHEDULES}cosine", "T": T}
    else:
        schedule = {"_target_": SCHEDULES + NAMES[found["beta_schedule"]].__name__, "T": T}
        schedule |= {ours: found[theirs] for ours, theirs in ends.items()}
    if found["rescale_betas_zero_snr"]:
        schedule = {"_target_": f"{SCHEDULES}zero_terminal_snr", "schedule": schedule}
    prediction = PREDICTIONS[found["prediction_type"]].__name__
    stepper, steps, spacing, remarks = _stepper(name, found)
    threshold = None
    if bounded and found["thresholding"]:
        quantile = found["dynamic_thresholding_ratio"]
        threshold = {
            "_target_": "unnoise.diffusion.denoiser.DynamicThreshold",
            "quantile": quantile,
        }
        if found["sample_max_value"] < UNBOUNDED:
            remarks.append("thresholds have no upper bound here (sample_max_value)")
    elif bounded and found["clip_sample"] and name not in OTHERS:
        threshold = {"_target_": "unnoise.diffusion.denoiser.Clip"}
    if threshold is not None and name == "DDIMScheduler":
        remarks.append(CLIPPED)
    elif not bounded and (
        found["thresholding"] or (name == "DDIMScheduler" and found["clip_sample"])
    ):
        remarks.append("a latent is not clipped here (clip_sample, thresholding)")
    off = {"scale": 1.0, "interval": None, "rescale": 0.0}
    sampler = {
        "_target_": "unnoise.diffusion.samplers.Sampler",
        "stepper": stepper,
        "steps": steps,
        "spacing": spacing,
        "threshold": threshold,
        "guidance": {"_target_": "unnoise.diffusion.guidance.Guidance", **off},
    }
    learned = name == "DDPMScheduler" and found["variance_type"] == "learned_range"
    kind = {"_target_": f"unnoise.diffusion.denoiser.{prediction}"}
    return Drawing(schedule, kind, sampler, learned, remarks)


def _stepper(
    name: str, found: Mapping[str, Any]
) -> tuple[dict[str, Any], int | None, str, list[str]]:
    """Step, number, spacing and remarks."""
    samplers, T = "unnoise.diffusion.samplers.", found["num_train_timesteps"]
    if name == "DDPMScheduler":
        kind = next(ours for ours, each in VARIANCES.items() if each == found["variance_type"])
        return {"_target_": f"{samplers}Ancestral", "variance": kind}, None, "uniform", []
    spacing = next(k for k, each in SPACINGS.items() if each == found["timestep_spacing"])
    remarks = []
    if name in OTHERS:
        remarks.append(
            f"{name} draws as nothing here does: it is DDIM in {DDIM_STEPS} steps instead"
        )
        spacing = "trailing"
    elif (found["steps_offset"] and spacing != "trailing") or not found["set_alpha_to_one"]:
        spacing = "trailing"
        why = "ends in a clean picture here, with spacing trailing (steps_offset, set_alpha_to_one)"
        remarks.append(f"DDIM starts at the last level and {why}")
    elif spacing == "uniform":
        remarks.append("DDIM steps from level to level here, as linspace says")
    return {"_target_": f"{samplers}DDIM", "eta": 0.0}, min(DDIM_STEPS, T), spacing, remarks
