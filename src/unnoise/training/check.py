"""All that is wrong with a run's config, before anything is run."""

import inspect
from pathlib import Path
from typing import Any

from unnoise.config.identity import directory_of
from unnoise.config.nodes import resolve_target
from unnoise.config.problems import UNKNOWN, ConfigError, Problem
from unnoise.config.schema import arguments, built, notes_of, problems
from unnoise.runs import lock, manifest
from unnoise.runs.checkpoints import find_checkpoint
from unnoise.runs.identity import differences
from unnoise.runs.layout import RunDirectory
from unnoise.training.initial import Initial, misfits
from unnoise.training.recipe import Recipe, Sets, completed
from unnoise.training.rules import broken
from unnoise.untrusted import load_yaml


def problems_of(config: dict[str, Any]) -> list[Problem]:
    """All that is wrong with a run's config: keys and values, constructors, and rules across.

    Each object is built once, and the rules look at these.
    """
    if config.get("resume") and isinstance(config.get("name"), str):
        try:
            lock.check(Path(directory_of(config)))
        except lock.RunLocked as error:
            return [Problem("resume", str(error))]
    try:
        schema = resolve_target(config.get("_target_"))
        if not (inspect.isclass(schema) and issubclass(schema, Recipe)):
            raise ConfigError(f"{config['_target_']} is no Recipe")
    except ConfigError as error:
        return [Problem("_target_", str(error))]
    keys = {key: value for key, value in config.items() if key != "_target_"}
    unbuilt = dict.fromkeys(schema.givers, UNKNOWN)
    handed = schema.handed(keys | unbuilt)
    networks = [name for name in handed if isinstance(keys.get(name), dict)]
    wrong = [
        Problem(f"{name}.{argument}", "is no key: it follows from the data and other keys")
        for name in networks
        for argument in handed[name].keys() & keys[name].keys()
    ]
    wrong += problems(completed(schema, keys, unbuilt), schema)
    on_meta = [key for key in schema.givers if key in keys and key != "data"]
    small = [k for k, v in keys.items() if isinstance(v, dict) and k not in (*networks, *on_meta)]
    faulty = {problem.key for problem in wrong}
    parts: dict[str, Any] = {k: UNKNOWN if k in faulty else v for k, v in keys.items()}
    for names, device in ((small, "cpu"), (on_meta, "meta"), (networks, "meta")):
        try:
            whole = completed(schema, keys, unbuilt | parts) if names is networks else keys
        except ValueError as error:
            wrong.append(Problem("autoencoder", str(error)))
            whole = completed(schema, keys, unbuilt)
        objects, more = built(whole, names, device, wrong)
        plain = [key for key in on_meta if isinstance(objects.get(key), dict)]
        more += [Problem(key, f"has no _target_: choose {key}=...") for key in plain]
        parts, wrong = parts | objects | dict.fromkeys(plain, UNKNOWN), [*wrong, *more]
    wrong += broken(schema.rules, parts)
    if isinstance(initial := parts.get("initial"), Initial):
        wrong += misfits(initial, keys, handed)
    for key, notes in notes_of(schema).items():
        set_here = {name for note in notes if isinstance(note, Sets) for name in note.names}
        for name in sorted(set_here.intersection(keys.get("trainer") or ())):
            wrong.append(Problem(f"trainer.{name}", f"is set from the key {key}: use that"))
    if isinstance(config.get("resume"), str) and not any(p.key == "resume" for p in wrong):
        wrong += resume_problems(config)
    return wrong


def resume_problems(config: dict[str, Any]) -> list[Problem]:
    """What keeps a certain run from going on under this config."""
    run_dir = Path(config["resume"])
    path, bundled = RunDirectory(run_dir).config, RunDirectory(run_dir).bundle.is_file()
    try:
        find_checkpoint(run_dir)
        if not path.is_file():
            raise FileNotFoundError(f"{run_dir} is not a run directory")
        if bundled or "imported" in manifest.read(run_dir):
            kind = "is a bundle" if bundled else "was imported"
            lacks = "and has no state of an optimizer to go on with"
            way = f"start from its weights by from={run_dir}"
            return [Problem("resume", f"{run_dir} {kind}, {lacks}: {way}")]
        different = differences(load_yaml(path), config, arguments)
    except (FileNotFoundError, ValueError) as error:
        return [Problem("resume", str(error))]
    except (AttributeError, KeyError, TypeError):
        return [Problem("resume", f"{path} is not the config of a run")]
    if config.get("lr_decay") == "constant":
        different.pop("max_steps", None)
    why = {"max_steps": "; the learning rate was to fall to 0 there (lr_decay)"}
    return [
        Problem(key, f"is {now!r}, but {run_dir} was trained with {then!r}{why.get(key, '')}")
        for key, (then, now) in different.items()
    ]
