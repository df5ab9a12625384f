"""The command line: composed once, with all that is wrong in it."""

import difflib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import yaml  # type: ignore[import-untyped]
from hydra._internal.defaults_list import create_defaults_list
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from hydra.version import setbase
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException

from unnoise.config import identity as _identity  # noqa: F401 (names run directories)
from unnoise.config.hydra_guard import GuardedLoader
from unnoise.config.problems import UNKNOWN, Problem, did_you_mean
from unnoise.config.refusals import first_line, group_refusal, unresolved, value_refusal
from unnoise.config.typed import as_text, expanded, in_shell
from unnoise.files import folder_fault

_PACKAGE = Path(__file__).resolve().parents[1]
CONF = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parents[1] / "conf"
"""The shipped configurations: beside the package in the wheel, else in the checkout."""

T = TypeVar("T")
FAULTS = (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError)
"""What Hydra raises where a config cannot be composed."""


def check_command_line(
    config_name: str,
    overrides: Sequence[str],
    config_dirs: Sequence[str | Path] = (),
    sweep: bool = True,
    runs: bool = False,
) -> tuple[dict[str, Any] | None, list[Problem]]:
    """Compose the job's configuration as Hydra would, and list every override that is wrong.

    A wrong override is left out, so that the rest can still be checked. Of a sweep, all options
    of a group are tried and the first value is used; without ``sweep`` there can be none. With
    ``runs`` the run directory must be one that can be written to.

    Returns:
        The configuration as plain resolved containers without the hydra node (None if it cannot
        be composed at all), and the problems. UNKNOWN stands for what could not be resolved.
    """
    missing = [
        Problem(f"--config-dir {folder}", "there is no such folder")
        for folder in config_dirs
        if not Path(folder).is_dir()
    ]
    with hydra_of(config_dirs) as hydra:
        loader = hydra.config_loader
        assert isinstance(loader, GuardedLoader)
        composer = _Composer(config_name, loader, sweep, runs)
        config = None
        try:
            config = composer.run(overrides)
        except FAULTS as error:  # not the overrides' fault
            names, why = composer.options(""), first_line(error)
            if isinstance(error, MissingConfigException) and names and config_name not in names:
                near = did_you_mean(config_name, names)
                why = f"no such configuration{near} ({', '.join(names)})"
            composer.say(config_name, why)
        return config, [*missing, *composer.found, *loader.refused]


@contextmanager
def hydra_of(config_dirs: Sequence[str | Path]) -> Iterator[Hydra]:
    """Hydra with the shipped configurations, and after them those of further folders."""
    searched = create_config_search_path(str(CONF))
    for folder in filter(os.path.isdir, config_dirs):
        path = f"file://{Path(folder).resolve()}"
        searched.prepend("command-line", path, anchor=SearchPathQuery(provider="schema"))
    setbase("1.3")
    hydra = Hydra("unnoise", GuardedLoader(searched))
    GlobalHydra.instance().clear()
    GlobalHydra.instance().initialize(hydra)
    try:
        yield hydra
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
    """Composes the groups that were chosen, then sets the values one after the other."""

    def __init__(self, config_name: str, loader: GuardedLoader, sweep: bool, runs: bool) -> None:
        self.config_name, self.loader, self.sweep, self.runs = config_name, loader, sweep, runs
        self.parser = OverridesParser.create(loader)
        self.searchpath: list[str] = []  # the overrides of it
        self.repository: Any = loader.repository
        self.found: list[Problem] = []

    def run(self, lines: Sequence[str]) -> dict[str, Any]:
        overrides = list(self.parse(lines, self.sweep))
        searched = [o for o in overrides if o.key_or_group == "hydra.searchpath"]
        self.searchpath = [str(override.input_line) for override in searched]
        self.repository = self.loader._parse_overrides_and_create_caching_repo(
            self.config_name, self.searchpath
        )[1]
        overrides = [o for o in overrides if o not in searched]
        groups = [override for override in overrides if self.is_group(override)]
        typed, values = list(groups), [o for o in overrides if o not in groups]
        config, filled, chosen = self.choose(groups)
        for override in values:
            self.set(config, override)
        swept = OmegaConf.select(config, "hydra.sweeper.params", throw_on_missing=False) or {}
        for override in self.parse([f"{key}={value}" for key, value in swept.items()]):
            if self.is_group(override):
                groups.append(override)
            else:
                self.set(config, override)
        for override in groups:
            key = override.get_key_element()
            others = [line for line in chosen if line.partition("=")[0] != key]
            for line in list(self.single(override))[override in typed :]:
                self.is_right(override, line, others)
        for group in filled:
            if not any(problem.key.startswith(f"{group}=") for problem in self.found):
                options = ", ".join(self.options(group.partition("@")[0]))
                self.say(group, f"missing: give it as {group}=... ({options})")
        if OmegaConf.select(config, "hydra.mode") is not None:
            mode = "the command line says which it is: with -m a sweep, without it one run"
            self.say("hydra.mode", mode)
        return self.resolve(config)

    def parse(self, lines: Sequence[str], sweep: bool = True) -> Iterator[Override]:
        """The overrides that can be read."""
        for line in lines:
            try:
                (override,) = self.parser.parse_overrides([line])
                legible = bool(override.key_or_group and next(self.single(override), None))
            except FAULTS:
                legible = False
            if not legible:
                right = as_text(line)
                hint = "write key=value" if right is None else f"as one text: {right}"
                self.say(line, f"cannot be read; {hint}")
                continue
            if override.is_sweep_override() and not sweep:
                a_list = in_shell(line.replace("=", "=[", 1) + "]")
                ways = f"as one text: {as_text(line)}; as a list: {a_list}; as a sweep: add -m"
                self.say(line, f"is several values; {ways}")
            yield override

    def say(self, key: str, message: str) -> None:
        self.found.append(Problem(key, message))

    def is_group(self, override: Override) -> bool:
        name = override.key_or_group
        known = self.options(name) or self.options(name, ObjectType.GROUP)
        return bool(known) and not isinstance(override.value(), dict)

    def options(self, group: str, kind: ObjectType = ObjectType.CONFIG) -> list[str]:
        names: list[str] = self.repository.get_group_options(group, kind)
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

    def choose(self, groups: list[Override]) -> tuple[DictConfig, dict[str, str], list[str]]:
        """The config of the groups that can be chosen, what was filled in, and their lines.

        For a mistyped option the one that was probably meant is taken.
        """
        lines = [next(self.single(override)) for override in groups]
        with suppress(*FAULTS):
            return *self.filled(lines, self.compose), lines
        chosen: list[str] = []
        for override, line in zip(groups, lines, strict=True):
            if self.is_right(override, line, chosen):
                chosen.append(line)
                continue
            key, _, value = line.partition("=")
            near = difflib.get_close_matches(value, self.options(override.key_or_group), n=1)
            if near and self.refusal([*chosen, f"{key}={near[0]}"]) is None:
                chosen.append(f"{key}={near[0]}")
        return *self.filled(chosen, self.compose), chosen

    def is_right(self, override: Override, line: str, others: list[str]) -> bool:
        """Whether an option can be chosen beside others; reports why not."""
        if (error := self.refusal([*others, line])) is not None:
            options = self.options(override.key_or_group)
            self.say(line, group_refusal(override, line, error, options))
        return error is None

    def refusal(self, lines: list[str]) -> Exception | None:
        try:
            self.filled(lines, self.defaults)
        except FAULTS as error:
            return error
        return None

    def filled(self, lines: list[str], do: Callable[[list[str]], T]) -> tuple[T, dict[str, str]]:
        """``do`` with overrides, and the first option of each group that must be given but is not.

        The second value holds these: group to override.
        """
        added: dict[str, str] = {}
        while True:
            try:
                return do([*self.searchpath, *lines, *added.values()]), added
            except HydraException as error:
                needed = re.search(r"You must specify '([^']+)'", str(error))
                options = self.options(needed[1].partition("@")[0]) if needed else []
                if needed is None or needed[1] in added or not options:
                    raise
                added[needed[1]] = f"{needed[1]}={options[0]}"

    def compose(self, lines: list[str]) -> DictConfig:
        return self.loader.load_configuration(self.config_name, lines, RunMode.RUN)

    def defaults(self, lines: list[str]) -> None:
        """Hydra's first step alone: which files make up the config."""
        read = self.loader._parse_overrides_and_create_caching_repo(self.config_name, lines)
        create_defaults_list(read[1], self.config_name, read[0], True, False)

    def set(self, config: DictConfig, override: Override) -> None:
        """Set a value as Hydra does, or report why it cannot be set."""
        line = next(self.single(override))
        (plain,) = self.parser.parse_overrides([line])
        parent = OmegaConf.select(config, override.key_or_group.rpartition(".")[0])
        try:
            if not (override.is_add() or override.is_force_add() or OmegaConf.is_config(parent)):
                raise HydraException(f"there is no {override.key_or_group}")
            self.loader._apply_overrides_to_config([plain], config)
        except FAULTS as error:
            groups = self.options("", ObjectType.GROUP)
            self.say(line, value_refusal(override, line, error, config, groups))

    def resolve(self, config: DictConfig) -> dict[str, Any]:
        """The whole configuration in plain containers."""
        OmegaConf.set_struct(config, False)
        if OmegaConf.is_missing(config.hydra.job, "num"):
            config.hydra.job.num, config.hydra.job.id = 0, "0"
        with hydra_config(config) as holder:
            folder = self.resolved(config.hydra.run, "dir", "hydra.run.dir")
            if isinstance(folder, str):
                if self.runs and (fault := folder_fault(folder)):
                    self.say("run directory", f"{fault}; hydra.run.dir=… puts it elsewhere")
                OmegaConf.set_readonly(config.hydra, False)
                config.hydra.runtime.output_dir = os.path.abspath(folder)
                holder.set_config(config)
            keys = [key for key in config if key != "hydra"]
            return {str(key): expanded(self.resolved(config, key, str(key))) for key in keys}

    def resolved(self, container: DictConfig | ListConfig, name: Any, key: str) -> Any:
        """``container[name]`` as a plain tree; what cannot be resolved is reported."""
        interpolated = OmegaConf.is_interpolation(container, name)
        if OmegaConf.is_missing(container, name) and not interpolated:
            return "???"
        try:
            value = container[name]
        except InterpolationToMissingValueError:
            return UNKNOWN  # the missing value itself is reported
        except OmegaConfBaseException as error:
            self.say(key, unresolved(error, container))
            return UNKNOWN
        if isinstance(value, DictConfig):
            return {str(k): self.resolved(value, k, f"{key}.{k!s}") for k in value}
        if isinstance(value, ListConfig):
            return [self.resolved(value, i, f"{key}.{i}") for i in range(len(value))]
        return value
