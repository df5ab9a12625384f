"""In what runs differ, and which of their numbers can therefore not be compared."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from unnoise.report.reader import Run
from unnoise.runs.identity import leaves

LOSS = (
    *("data", "schedule", "prediction", "objective", "learned_variance", "conditioning"),
    *("validation_images", "condition_dropout"),
)
"""Config keys on which the value of a loss depends; the last not for a validation loss."""
MEASURED = {"quality": "callbacks.quality", "bits_per_dim": "callbacks.bits_per_dim"}
"""Beginnings of metrics that do not depend on the loss, and the keys of how they are measured."""
HOUSEKEEPING = (
    *("name", "resume", "logger", "trainer", "callbacks", "workers"),
    *("validate_every", "validation_images", "accumulate"),
)
"""Config keys that the leaderboard leaves out."""
COLUMNS = 8  # most config keys in the leaderboard; the table of differences has all


def labels(runs: Sequence[Run]) -> list[str]:
    """A short unique label for each run.

    The name; if that is not unique, with the overrides that other runs of the name lack; if that
    is not, with the folder. A name that all runs share is left out.
    """
    first = [run.name for run in runs]
    runs_of = Counter(first)  # and of each name, how many have an override
    having = Counter((run.name, each) for run in runs for each in dict.fromkeys(run.overrides))

    def own(run: Run) -> str:
        some = (each for each in run.overrides if having[run.name, each] < runs_of[run.name])
        return " ".join(some) or "as it is"

    further: list[Callable[[Run], str]] = [own, lambda r: r.folder.name, lambda r: str(r.folder)]
    names = first
    for longer in further:
        count = Counter(names)
        more = [longer(run) if len(runs_of) == 1 else f"{run.name} · {longer(run)}" for run in runs]
        names = [n if count[n] == 1 else m for n, m in zip(names, more, strict=True)]
    return names


def at(config: Any, key: str) -> Any:
    """The value of a dotted key; None if there is none."""
    for part in key.split("."):
        config = config.get(part) if isinstance(config, Mapping) else None
    return config


def typed(value: Any) -> str:
    """A value as a user types it."""
    if value is None:
        return "null"
    if isinstance(value, bool | list | dict):
        return json.dumps(value, default=str)
    return str(value)


def _table(runs: Sequence[Run]) -> dict[str, list[str]]:
    """The values of each key in each run; "" where a run lacks the key."""
    flat = [dict(leaves(run.config)) for run in runs]
    keys = dict.fromkeys(key for each in flat for key in each)
    return {key: [typed(each[key]) if key in each else "" for each in flat] for key in keys}


def differences(runs: Sequence[Run]) -> dict[str, list[str]]:
    """The values of each key in which runs differ; "" where a run lacks the key."""
    return {key: row for key, row in _table(runs).items() if len(set(row)) > 1}


def config_rows(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """All keys of all configs: values with whether one is not the most common, and "differs"."""
    rows = []
    for key, values in _table(runs).items():
        common, _ = Counter(values).most_common(1)[0]
        cells = [(value or "–", value != common) for value in values]
        rows.append({"key": key, "cells": cells, "differs": len(set(values)) > 1})
    return rows


def columns(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """The ``COLUMNS`` most telling keys in which runs differ, with their values.

    Where runs differ in the option of a config group, or else in a class (``_target_``), its name
    stands for all keys below it that differ along with it.
    """
    rows = {k: v for k, v in differences(runs).items() if k.partition(".")[0] not in HOUSEKEEPING}
    roots = {key.removesuffix("._target_") for key in rows if key.endswith("._target_")}
    groups = {group for run in runs for group in run.choices}
    roots |= {group for group in groups if len({run.choices.get(group) for run in runs}) > 1}
    chosen: dict[str, list[Any]] = {}
    for key, row in rows.items():
        inside = [root for root in roots if key == root or key.startswith(f"{root}.")]
        name = min(inside, key=len) if inside else key
        brief = chosen.setdefault(name, [_brief(run, name) for run in runs])
        if len(set(zip(brief, row, strict=True))) > len(set(brief)):
            chosen[key] = [_brief(run, key) for run in runs]
    differ = {k: v for k, v in chosen.items() if len(set(map(str, v))) > 1}
    order = sorted(differ, key=lambda name: (name == "seed", name not in roots))
    return {name: differ[name] for name in order[:COLUMNS]}


def _brief(run: Run, key: str) -> Any:
    """A value; of a node the option chosen for it, else its class, of a sampler its stepper's."""
    value = at(run.config, key)
    if key in run.choices:
        return run.choices[key]
    if not isinstance(value, Mapping):
        plain = isinstance(value, int | float | str) and not isinstance(value, bool)
        return value if plain else typed(value)
    named = value.get("stepper", value)
    return str(at(named, "_target_")).rpartition(".")[2]


def kinds(runs: Sequence[Run], metric: str) -> tuple[list[int], list[str]]:
    """A number for each run, from 0 on: runs with the same number may be compared by a metric.

    Losses may be compared if the keys of ``LOSS`` agree; qualities and bits/dim if the data and
    the way of measuring agree; all other metrics always.

    Returns:
        The numbers, and the config keys that keep runs apart.
    """
    name = metric.removeprefix("validation/")
    part = next((key for start, key in MEASURED.items() if name.startswith(start)), None)
    if part is not None:
        relevant = [{"data": _data(run), part: _way(run, part)} for run in runs]
    elif "loss" in metric:
        keys = LOSS[:-1] if metric.startswith("validation") else LOSS
        relevant = [{k: run.config.get(k) for k in keys} | {"data": _data(run)} for run in runs]
    else:
        return [0] * len(runs), []
    texts = [json.dumps(each, sort_keys=True, default=str) for each in relevant]
    order = list(dict.fromkeys(texts))
    differ = [k for k in relevant[0] if len({json.dumps(r[k], default=str) for r in relevant}) > 1]
    number = {text: k for k, text in enumerate(order)}
    return [number[each] for each in texts], differ


def _way(run: Run, part: str) -> Any:
    """The config of a measuring callback, without keys that do not change the result."""
    node = at(run.config, part)
    ignored = ("every", "batch_size", "metrics")
    return {k: v for k, v in node.items() if k not in ignored} if isinstance(node, dict) else node


def _data(run: Run) -> Any:
    """The fingerprint of the data; if a run has none, their config."""
    fingerprint = at(run.manifest, "data.fingerprint")
    if fingerprint is not None:
        return fingerprint
    return {k: v for k, v in leaves(run.config.get("data"), "data") if k != "data.root"}
