"""The grid that unnoise-evaluate draws: checkpoint × EMA × sampler × steps × guidance × seed."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, Literal

import yaml  # type: ignore[import-untyped]

from unnoise.config.compose import CONF
from unnoise.config.nodes import MODEL, instantiate
from unnoise.diffusion.samplers import steps_for
from unnoise.evaluation.gallery import SampleSet

Node = dict[str, Any]


def sample_sets(
    keys: Mapping[str, Any],
    own: Node,
    checkpoints: Sequence[Path],
    precision: Literal["fp32", "bf16"] = "fp32",
    prompts: str | None = None,
) -> Iterator[tuple[str, SampleSet]]:
    """Every combination of the keys, each with a name: the sampler, and what differs.

    ``keys`` are those of ``conf/measure/quality.yaml``; ``own`` is the run's sampler, which is
    taken where they have none.
    """
    axes = product(checkpoints, keys["averaged"], _recipes(keys, own), keys["seeds"])
    for checkpoint, averaged, (name, node), seed in axes:
        samples = SampleSet(
            checkpoint=checkpoint,
            recipe=node,
            seed=seed,
            averaged=averaged,
            precision=precision,
            prompts=prompts,
        )
        words = [name]
        if keys["guidance"] is not None and len(keys["guidance"]) > 1:
            words.append(f"guidance {node['guidance']['scale']:g}")
        if len(checkpoints) > 1:
            words.append(f"step {samples.step}")
        if len(keys["averaged"]) > 1:
            kinds = {True: "averaged", False: "last weights"}
            words.append(kinds.get(averaged, f"averaged over {averaged:g}"))
        if len(keys["seeds"]) > 1:
            words.append(f"seed {seed}")
        yield ", ".join(words), samples


def recipe(sampler: Node, steps: int | None = None, scale: float | None = None) -> Node:
    """A sampler's node with another number of steps and another guidance scale, where given."""
    node = dict(sampler)
    given = {"steps": steps, "guidance": scale}
    if missing := [key for key in given if given[key] is not None and key not in node]:
        raise ValueError(f"{sampler_name(sampler)} has no {' and no '.join(missing)}")
    if steps is not None:
        node["steps"] = steps
    if scale is not None:
        node["guidance"] = {**node["guidance"], "scale": float(scale)}
    return node


def _recipes(keys: Mapping[str, Any], own: Node) -> Iterator[tuple[str, Node]]:
    """Samplers, each with every number of steps and every guidance scale that it is to have."""
    own = keys["sampler"] or own
    samplers: dict[str, Node] = keys["samplers"] or {sampler_name(own): own}
    several = [(name, node, k) for name, node in samplers.items() for k in _steps(keys, node)]
    several += [(name, node, None) for name, node in keys["baselines"].items()]
    for name, node, steps in several:
        for scale in keys["guidance"] or [None]:
            made = recipe(node, steps, scale)
            taken = made.get("steps")
            yield (name if taken is None else f"{name} {taken}"), made


def _steps(keys: Mapping[str, Any], node: Node) -> list[int | None]:
    if keys["evaluations"] is not None:
        if "stepper" not in node:
            raise ValueError(f"{sampler_name(node)} draws in one evaluation: leave evaluations out")
        stepper = instantiate(node, MODEL).stepper
        return [steps_for(count, stepper) for count in keys["evaluations"]]
    return keys["steps"] or [None]


def sampler_name(node: Node) -> str:
    """The name in ``conf/sampler`` of the config whose step is this, else its class's name."""
    stepper = node.get("stepper", node)
    shipped = {
        path.stem: yaml.safe_load(path.read_text(encoding="utf-8"))
        for path in CONF.glob("sampler/*.yaml")
    }
    steppers = {k: other.get("stepper", other) for k, other in sorted(shipped.items())}
    alike = [name for name, other in steppers.items() if other == stepper]
    alike += [k for k, other in steppers.items() if other["_target_"] == stepper["_target_"]]
    return alike[0] if alike else str(stepper["_target_"].rpartition(".")[2].lower())
