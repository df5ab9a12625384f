"""The command line: every override is tried, and all that are wrong are told at once."""

import difflib
import functools
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from hydra import compose
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.errors import HydraException, MissingConfigException
from hydra.version import setbase
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.errors import (
    InterpolationKeyError,
    InterpolationToMissingValueError,
    OmegaConfBaseException,
)

from unnoise.config import identity as _identity  # noqa: F401 (names run directories)
from unnoise.config.hydra_guard import hydra_problems
from unnoise.config.nodes import resolve_target
from unnoise.config.problems import UNKNOWN, ConfigError, Problem, did_you_mean
from unnoise.config.schema import parameters

_PACKAGE = Path(__file__).resolve().parents[1]
CONF = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parents[1] / "conf"
"""The shipped configurations: beside the package in the wheel, else in the checkout."""
SETUP: list[str] = yaml.safe_load((CONF / "hydra/launcher/slurm.yaml").read_text())["setup"]
"""What SLURM runs before each job."""

FAULTS = (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError)
"""What Hydra raises where a config cannot be composed."""
PACKAGES = {
    "hydra/sweeper/optuna": "sweeps",
    "hydra/launcher/joblib": "sweeps",
    "hydra/launcher/submitit_local": "sweeps",
    "hydra/launcher/submitit_slurm": "sweeps",
    "hydra/launcher/ray": "ray",
}
"""Options that come with packages which may not be there, and the extra that has them."""


def check_command_line(
    config_name: str, overrides: Sequence[str], config_dirs: Sequence[str | Path] = ()
) -> tuple[dict[str, Any] | None, list[Problem]]:
    """Compose the job's configuration as Hydra would, and list every override that it refuses.

    A refused override is left out, so that the rest can still be checked. Of a sweep, all options
    of a group are tried and the first value is used. What concerns Hydra itself (``hydra.*``) is
    left for Hydra to judge, short of what it would call (``hydra_problems``).

    Returns:
        The configuration as plain resolved containers without the hydra node (None if it cannot
        be composed at all), and the problems. UNKNOWN stands for what could not be resolved.
    """
    found = [
        Problem(f"--config-dir {folder}", "there is no such folder")
        for folder in config_dirs
        if not Path(folder).is_dir()
    ]
    with hydra_of(config_dirs):
        composer = _Composer(config_name)
        try:
            config = composer.run(overrides)
        except FAULTS as error:  # not the overrides' fault
            config = None
            composer.found.append(composer.broken(error))
    return config, [*found, *composer.found, *composer.hostile]


@contextmanager
def hydra_of(config_dirs: Sequence[str | Path]) -> Iterator[Hydra]:
    """Hydra with the shipped configurations, and those of further folders before them."""
    searched = create_config_search_path(str(CONF))
    for folder in filter(os.path.isdir, config_dirs):
        path = f"file://{Path(folder).resolve()}"
        searched.prepend("command-line", path, anchor=SearchPathQuery(provider="schema"))
    setbase("1.3")
    try:
        yield Hydra.create_main_hydra2("unnoise", searched)
    finally:
        GlobalHydra.instance().clear()


@contextmanager
def hydra_config(config: DictConfig) -> Iterator[HydraConfig]:
    """Hydra's own part of a config where interpolations such as ${hydra:job.num} look for it."""
    holder = HydraConfig.instance()
    before = holder.cfg
    holder.set_config(config)
    try:
        yield holder
    finally:
        holder.cfg = before


class _Composer:
    """Adds overrides one after the other to those accepted so far."""

    def __init__(self, config_name: str) -> None:
        self.config_name = config_name
        self.folders: list[str] = []  # of the user's own hydra.searchpath
        self.found: list[Problem] = []
        self.hostile: dict[Problem, None] = {}  # what Hydra would call, of any job
        self.accepted: list[str] = []
        self.loader = GlobalHydra.instance().config_loader()
        self.parser = OverridesParser.create(self.loader)

    def run(self, lines: Sequence[str]) -> dict[str, Any]:
        overrides = []
        for override in self.parse(lines):
            if override.key_or_group == "hydra.searchpath":
                self.folders += override.value() or []  # type: ignore[arg-type]
            else:
                overrides.append(override)
        overrides.sort(key=lambda override: not self.is_group(override))
        firsts = [next(self.single(override)) for override in overrides]
        try:
            self.compose(firsts)
            self.accepted = firsts
        except FAULTS:
            self.compose([])
            for override, line in zip(overrides, firsts, strict=True):
                self.accept(override, line)
        for override in overrides:
            for line in list(self.single(override))[1:]:
                self.check(override, line)
        return self.finish()

    def parse(self, lines: Sequence[str]) -> Iterator[Override]:
        """The overrides that can be read."""
        for line in lines:
            try:
                override = self.parser.parse_overrides([line])[0]
                legible = bool(override.key_or_group and next(self.single(override), None))
            except FAULTS:
                legible = False
            if legible:
                yield override
            else:
                hint = "write key=value, with special characters as key='...'"
                self.found.append(Problem(line, f"cannot be read; {hint}"))

    @property
    def searchpath(self) -> list[str]:
        return [f"hydra.searchpath=[{','.join(map(repr, self.folders))}]"] if self.folders else []

    def is_group(self, override: Override) -> bool:
        name = override.key_or_group
        known = self.options(name) or self.options(name, ObjectType.GROUP)
        return bool(known) and not isinstance(override.value(), dict)

    def options(self, group: str, kind: ObjectType = ObjectType.CONFIG) -> list[str]:
        names: list[str] = self.loader.get_group_options(
            group, kind, self.config_name, self.searchpath
        )
        return [name for name in names if not name.startswith("_")]

    def single(self, override: Override) -> Iterator[str]:
        """The override without its sweep: all options of a group, or the first value."""
        if not override.is_sweep_override():
            yield override.input_line or ""
            return
        sweep = override.value()
        if isinstance(sweep, IntervalSweep):
            yield f"{override.get_key_element()}={sweep.start}"
            return
        for value in override.sweep_string_iterator():
            yield f"{override.get_key_element()}={value}"
            if not self.is_group(override):
                return

    def compose(self, lines: Sequence[str]) -> tuple[DictConfig, dict[str, str]]:
        """The configuration, with the first option for every group that must be given but is not.

        The second value holds these: group to override.
        """
        filled: dict[str, str] = {}
        while True:
            try:
                every = [*self.searchpath, *lines, *filled.values()]
                config = compose(self.config_name, every, return_hydra_config=True)
                self.hostile |= dict.fromkeys(hydra_problems(config.hydra, lines, SETUP))
                return config, filled
            except HydraException as error:
                needed = re.search(r"You must specify '([^']+)'", str(error))
                options = self.options(needed[1].partition("@")[0]) if needed else []
                if needed is None or needed[1] in filled or not options:
                    raise
                filled[needed[1]] = f"{needed[1]}={options[0]}"

    def accept(self, override: Override, line: str) -> None:
        if self.check(override, line):
            self.accepted.append(line)
        elif self.is_group(override):  # go on with what was probably meant
            key, _, value = line.partition("=")
            near = difflib.get_close_matches(value, self.options(override.key_or_group), n=1)
            if near and self.refusal(meant := f"{key}={near[0]}") is None:
                self.accepted.append(meant)

    def check(self, override: Override, line: str) -> bool:
        error = self.refusal(line)
        if (extra := PACKAGES.get(_missing(error))) is not None:
            told = f"needs a package that is not there: pip install 'unnoise[{extra}]'"
            self.found.append(Problem(line, told))
        elif error is not None and not override.is_hydra_override():
            self.found.append(Problem(line, self.explain(override, line, error)))
        return error is None

    def refusal(self, line: str) -> Exception | None:
        try:
            self.compose([*self.accepted, line])
        except FAULTS as error:
            return error
        return None

    def explain(self, override: Override, line: str, error: Exception) -> str:
        """Why Hydra refuses an override, and what would be right."""
        name, text, bare = override.key_or_group, first_line(error), line.lstrip("+~")
        if self.is_group(override):
            value, options = line.partition("=")[2], self.options(name)
            if value not in options and "/" not in value and not value.startswith("["):
                near = did_you_mean(value, options)
                return f"no such option{near} ({', '.join(options)})"
            if isinstance(error, MissingConfigException) and error.options:
                missing = str(error.missing_cfg_file)
                near = did_you_mean(missing.rpartition("/")[2], error.options)
                return f"names '{missing}', which does not exist{near}"
            if "No match in the defaults list" in text and override.is_delete():
                return "is not a part of this configuration: there is nothing to remove"
            if "No match in the defaults list" in text:
                return f"is not a part of this configuration; to add it write +{bare}"
            if "Multiple values" in text:
                return f"is a part of the configuration already; write {bare}"
            return text
        if "Could not append" in text:
            return f"is set already; write {bare}"
        config = self.plain_keys()
        keys = list(_dotted(config))
        if name in keys:
            return text
        parent, _, leaf = name.rpartition(".")
        siblings = _parameters_at(config, parent)
        if leaf in siblings and not override.is_delete():
            return f"is not set in this configuration; to add it write +{bare}"
        known = [*keys, *(f"{parent}.{sibling}" for sibling in siblings)]
        if "." not in name:
            known += self.options("", ObjectType.GROUP)
        near = did_you_mean(name, known)
        if not near:
            alike = difflib.get_close_matches(leaf, [key.rpartition(".")[2] for key in keys], n=1)
            near = did_you_mean(name, [k for k in keys if k.rpartition(".")[2] in alike], cutoff=0)
        return f"unknown key{near}"

    def plain_keys(self) -> dict[str, Any]:
        config, _ = self.compose(self.accepted)
        with open_dict(config):
            del config["hydra"]
        return OmegaConf.to_container(config, resolve=False)  # type: ignore[return-value]

    def broken(self, error: Exception) -> Problem:
        names = self.options("") if isinstance(error, MissingConfigException) else []
        if names and self.config_name not in names:
            near = did_you_mean(self.config_name, names)
            return Problem(self.config_name, f"no such configuration{near} ({', '.join(names)})")
        return Problem(self.config_name, first_line(error))

    def finish(self) -> dict[str, Any]:
        """The configuration of all that was accepted, resolved."""
        config, filled = self.compose(self.accepted)
        for group in filled:
            if not any(problem.key.startswith(f"{group}=") for problem in self.found):
                options = ", ".join(self.options(group.partition("@")[0]))
                self.found.append(Problem(group, f"missing: give it as {group}=... ({options})"))
        self.check_sweeper(config)
        OmegaConf.set_struct(config, False)
        if OmegaConf.is_missing(config.hydra.job, "num"):
            config.hydra.job.num, config.hydra.job.id = 0, "0"
        with hydra_config(config) as holder:
            folder = self.resolved(config.hydra.run, "dir", "hydra.run.dir")
            if isinstance(folder, str):
                OmegaConf.set_readonly(config.hydra, False)
                config.hydra.runtime.output_dir = os.path.abspath(folder)
                holder.set_config(config)
            return {
                str(key): self.resolved(config, key, str(key)) for key in config if key != "hydra"
            }

    def check_sweeper(self, config: DictConfig) -> None:
        """The keys that a sweeper will set, as if they stood on the command line."""
        swept = OmegaConf.select(config, "hydra.sweeper.params", throw_on_missing=False) or {}
        for key, value in swept.items():
            for override in self.parse([f"{key}={value}"]):
                for line in self.single(override):
                    self.check(override, line)

    def resolved(self, container: DictConfig | ListConfig, name: Any, key: str) -> Any:
        """``container[name]`` as a plain tree; what cannot be resolved is reported."""
        if OmegaConf.is_missing(container, name) and not OmegaConf.is_interpolation(
            container, name
        ):
            return "???"
        try:
            value = container[name]
        except InterpolationToMissingValueError:
            return UNKNOWN  # the missing value itself is reported
        except OmegaConfBaseException as error:
            self.found.append(Problem(key, _unresolved(error, container)))
            return UNKNOWN
        if isinstance(value, DictConfig):
            return {str(k): self.resolved(value, k, f"{key}.{k!s}") for k in value}
        if isinstance(value, ListConfig):
            return [self.resolved(value, i, f"{key}.{i}") for i in range(len(value))]
        return value


def _missing(error: Exception | None) -> str:
    """The file that was looked for in vain."""
    return str(error.missing_cfg_file) if isinstance(error, MissingConfigException) else ""


def first_line(error: Exception) -> str:
    """The first line of an error; for YAML also the place."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        mark = error.problem_mark
        return f"{error.problem} in {mark.name}, line {mark.line + 1}, column {mark.column + 1}"
    return (str(error) or type(error).__name__).strip().splitlines()[0]


def _unresolved(error: OmegaConfBaseException, container: DictConfig | ListConfig) -> str:
    text = first_line(error)
    if isinstance(error, InterpolationKeyError) and (wanted := re.search(r"'(.*)'", text)):
        root = OmegaConf.to_container(container._get_root(), resolve=False)
        keys = [key for key in _dotted(root) if not key.startswith("hydra")]
        return f"refers to '{wanted[1]}', which does not exist{did_you_mean(wanted[1], keys)}"
    if variable := re.search(r"Environment variable '(.*)' not found", text):
        return f"environment variable '{variable[1]}' is not set"
    return re.sub(r"^\w+ raised while resolving interpolation: ", "", text)


def _dotted(tree: Any, prefix: str = "") -> Iterator[str]:
    """All keys of a plain tree of dicts, inner and outer."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield f"{prefix}{key}"
            yield from _dotted(value, f"{prefix}{key}.")


def _parameters_at(config: Any, key: str) -> list[str]:
    """The parameters of the node at a dotted key; none where there is no such node."""
    try:
        node = functools.reduce(lambda tree, name: tree[name], key.split("."), config)
        return list(parameters(resolve_target(node["_target_"]))) if key else []
    except (KeyError, TypeError, IndexError, ConfigError):
        return []
