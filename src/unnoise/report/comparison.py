"""In what runs differ, and which of their numbers that makes incomparable."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from unnoise.report.runs import Run

LOSS = (
    *("data", "schedule", "prediction", "objective", "learned_variance", "conditioning"),
    *("validation_images", "condition_dropout"),
)
"""Keys that decide what a loss is a loss of; the last not of a validation loss."""
MEASURED = {"quality": "callbacks.quality", "bits_per_dim": "callbacks.bits_per_dim"}
"""How metrics begin that tell of a model whatever its loss, and the keys of how they are measured.
"""
HOUSEKEEPING = (
    *("name", "resume", "logger", "trainer", "callbacks", "workers"),
    *("validate_every", "validation_images", "accumulate"),
)
"""Keys that tell little of a run; the leaderboard leaves them out."""
COLUMNS = 8
"""Of the config in the leaderboard, at most; the rest is told in the table of differences."""


def labels(runs: Sequence[Run]) -> list[str]:
    """A name for each run that tells it from the others, as short as may be.

    Its name; or with what was typed for it and not for all of that name; or with its folder. A name
    that all share is left out.
    """
    told = [run.name for run in runs]
    shared = len(set(told)) == 1
    for further in (_typed, lambda run, same: run.folder.name, lambda run, same: str(run.folder)):
        longer = [further(run, [other for other in runs if other.name == run.name]) for run in runs]
        told = [
            label if told.count(label) == 1 else more if shared else f"{run.name} · {more}"
            for run, label, more in zip(runs, told, longer, strict=True)
        ]
    return told


def _typed(run: Run, same: Sequence[Run]) -> str:
    own = [each for each in run.overrides if not all(each in other.overrides for other in same)]
    return " ".join(own) or "as it is"


def leaves(tree: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Each value of a config under its dotted key; a list is one value."""
    if isinstance(tree, Mapping) and tree:
        for name, value in tree.items():
            yield from leaves(value, f"{key}.{name}" if key else str(name))
    elif key:
        yield key, tree


def shown(value: Any) -> str:
    """A config's value as a user types it; of a class or function only its own name."""
    if value is None:
        return "null"
    if isinstance(value, bool | list | dict):
        return json.dumps(value, default=str)
    return str(value)


def differences(runs: Sequence[Run]) -> dict[str, list[str]]:
    """Of each key whose values differ, the value in each run; "" where a run lacks the key."""
    flat = [dict(leaves(run.config)) for run in runs]
    keys = dict.fromkeys(key for each in flat for key in each)
    rows = {key: [shown(each[key]) if key in each else "" for each in flat] for key in keys}
    return {key: row for key, row in rows.items() if len(set(row)) > 1}


def columns(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """What tells the runs apart at a glance: at most ``COLUMNS`` keys, and the values.

    Where runs differ in what is chosen for a group, or else in what is built (``_target_``), its
    name stands for all below it that differs with it.
    """
    rows = {k: v for k, v in differences(runs).items() if k.partition(".")[0] not in HOUSEKEEPING}
    roots = {key.removesuffix("._target_") for key in rows if key.endswith("._target_")}
    groups = {group for run in runs for group in run.choices}
    roots |= {group for group in groups if len({run.choices.get(group) for run in runs}) > 1}
    told: dict[str, list[Any]] = {}
    for key, row in rows.items():
        inside = [root for root in roots if key == root or key.startswith(f"{root}.")]
        name = min(inside, key=len) if inside else key
        brief = told.setdefault(name, [_brief(run, name) for run in runs])
        if len(set(zip(brief, row, strict=True))) > len(set(brief)):
            told[key] = [_brief(run, key) for run in runs]
    differ = {k: v for k, v in told.items() if len(set(map(str, v))) > 1}
    order = sorted(differ, key=lambda name: (name == "seed", name not in roots))
    return {name: differ[name] for name in order[:COLUMNS]}


def at(config: Any, key: str) -> Any:
    """The value under a dotted key; None where there is none."""
    for part in key.split("."):
        config = config.get(part) if isinstance(config, Mapping) else None
    return config


def _brief(run: Run, key: str) -> Any:
    """A node by what was chosen for it, else by what it builds, of samplers by their stepper."""
    value = at(run.config, key)
    if key in run.choices:
        return run.choices[key]
    if not isinstance(value, Mapping):
        plain = isinstance(value, int | float | str) and not isinstance(value, bool)
        return value if plain else shown(value)
    named = value.get("stepper", value)
    return str(at(named, "_target_")).rpartition(".")[2]


def kinds(runs: Sequence[Run], metric: str) -> tuple[list[int], list[str]]:
    """A number for each run, equal for runs whose values of a metric may be compared.

    Returns:
        The numbers, from 0 on, and the keys for which they differ. Losses compare where data,
        schedule, prediction, objective and what is asked agree; a quality or bits/dim where data
        and the way it was measured do; all else always.
    """
    name = metric.removeprefix("validation/")
    part = next((key for start, key in MEASURED.items() if name.startswith(start)), None)
    if part is not None:
        chosen = [{"data": _data(run), part: _way(run, part)} for run in runs]
    elif "loss" in metric:
        keys = LOSS[:-1] if metric.startswith("validation") else LOSS
        chosen = [{key: run.config.get(key) for key in keys} | {"data": _data(run)} for run in runs]
    else:
        return [0] * len(runs), []
    told = [json.dumps(each, sort_keys=True, default=str) for each in chosen]
    order = list(dict.fromkeys(told))
    differ = [k for k in chosen[0] if len({json.dumps(c[k], default=str) for c in chosen}) > 1]
    return [order.index(each) for each in told], differ


def _way(run: Run, part: str) -> Any:
    """How a callback measures, short of how often."""
    node = at(run.config, part)
    apart = ("every", "batch_size", "metrics")
    return {k: v for k, v in node.items() if k not in apart} if isinstance(node, dict) else node


def _data(run: Run) -> Any:
    """The fingerprint of the data, or where a run lacks it, how they are made."""
    told = at(run.manifest, "data.fingerprint")
    if told is not None:
        return told
    return {k: v for k, v in leaves(run.config.get("data"), "data") if k != "data.root"}
