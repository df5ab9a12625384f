"""The grid of settings that unnoise-evaluate draws: checkpoint × EMA × sampler × steps × …"""

import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, Literal

import yaml  # type: ignore[import-untyped]

from unnoise.config.compose import CONF
from unnoise.config.nodes import instantiate
from unnoise.diffusion.samplers import Sampler, steps_for
from unnoise.evaluation.gallery import Setting

Node = dict[str, Any]


def step_of(checkpoint: Path) -> int | None:
    """After which step it was saved, by its name; None of a file that is called otherwise."""
    found = re.fullmatch(r"step_(\d+)\.ckpt", checkpoint.name)
    return None if found is None else int(found[1])


def named_settings(
    config: Node,
    trained: Node,
    chosen: list[Path],
    precision: Literal["fp32", "bf16"],
    asked: str | None = None,
) -> Iterator[tuple[str, Setting]]:
    """Every combination of the request, each with a name: the sampler, and what differs.

    Args:
        config: the request of ``conf/measure/quality.yaml``.
        trained: the run's config, whose sampler is taken where the request names none.
        chosen: the checkpoints.
        precision: of the network while it draws.
        asked: the fingerprint of what conditions are taken from.
    """
    axes = product(chosen, config["averaged"], _recipes(config, trained), config["seeds"])
    for checkpoint, averaged, (name, node, scale), seed in axes:
        words = [name]
        if config["guidance"] is not None and len(config["guidance"]) > 1:
            words.append(f"guidance {scale:g}")
        if len(chosen) > 1:
            words.append(f"step {step_of(checkpoint)}")
        if len(config["averaged"]) > 1:
            words.append("averaged" if averaged else "last weights")
        if len(config["seeds"]) > 1:
            words.append(f"seed {seed}")
        yield ", ".join(words), Setting(checkpoint, averaged, node, seed, precision, asked)


def _recipes(config: Node, trained: Node) -> list[tuple[str, Node, float]]:
    """Samplers with their numbers of steps and scales of guidance: name, node, scale."""
    own = config["sampler"] or trained["sampler"]
    samplers: dict[str, Node] = config["samplers"] or {sampler_name(own): own}
    found = []
    for name, node in samplers.items():
        for steps in _steps(config, instantiate(node)):
            found += [(name, node, steps, scale) for scale in _scales(config, node)]
    for name, node in config["baselines"].items():
        found += [(name, node, node["steps"], scale) for scale in _scales(config, node)]
    return [
        (
            name if steps is None else f"{name} {steps}",
            {**node, "steps": steps, "guidance": {**node["guidance"], "scale": float(scale)}},
            float(scale),
        )
        for name, node, steps, scale in found
    ]


def _steps(config: Node, sampler: Sampler) -> list[int | None]:
    if config["evaluations"] is not None:
        return [steps_for(count, sampler.stepper) for count in config["evaluations"]]
    return list(config["steps"]) if config["steps"] is not None else [sampler.steps]


def _scales(config: Node, node: Node) -> list[float]:
    return config["guidance"] if config["guidance"] is not None else [node["guidance"]["scale"]]


def sampler_name(node: Node) -> str:
    """The name in ``conf/sampler`` of the config whose step is this, else its class's name."""
    shipped = {path.stem: yaml.safe_load(path.read_text()) for path in CONF.glob("sampler/*.yaml")}
    for name, other in sorted(shipped.items()):
        if other["stepper"] == node["stepper"]:
            return name
    for name, other in sorted(shipped.items()):
        if other["stepper"]["_target_"] == node["stepper"]["_target_"]:
            return name
    return str(node["stepper"]["_target_"].rpartition(".")[2].lower())
