"""The jobs of a sweep, composed and checked before any of them is run."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import get_overrides_dirname
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.hydra import Hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from unnoise.config.compose import FAULTS, hydra_config, hydra_of
from unnoise.config.identity import OUTPUTS, part_of_sweep, roles_of, root_of
from unnoise.config.problems import Check, ConfigError, Problem, errors_in
from unnoise.config.refusals import first_line
from unnoise.config.schema import arguments
from unnoise.config.search import Search, search_of
from unnoise.config.typed import expanded
from unnoise.files import folder_fault
from unnoise.runs.identity import Role, digest, values


@dataclass(frozen=True)
class Job:
    """One run of a sweep: what the sweep sets for it, its resolved config and its directory."""

    swept: tuple[str, ...]
    config: dict[str, Any]
    run_dir: Path


@dataclass(frozen=True)
class Sweep:
    """What ``-m`` asks for: all jobs of a grid, or those that a search has chosen so far.

    ``digest`` is of what is typed and swept, however and on what it is run; ``folder`` is where
    Hydra notes what it does; ``search`` is None for a grid, ``keys`` are those that the sweep sets,
    and ``problems`` says which jobs cannot be composed.
    """

    digest: str
    folder: Path
    keys: set[str]
    search: Search | None
    jobs: list[Job]
    problems: list[Problem]

    def problems_by(self, check: Check, config: dict[str, Any]) -> list[Problem]:
        """All that is wrong with the sweep: its jobs, or ``config``, what a search keeps fixed."""
        found = list(self.problems)
        if isinstance(config["resume"], str):
            why = "names one run, but a sweep finds the runs of its jobs by itself: leave it out"
            found.append(Problem("resume", why))
        for name, each in config["callbacks"].items():
            prunes = isinstance(each, dict) and "pruner" in each
            if prunes and (self.search is None or self.search.study is None):
                why = "needs a search with hydra.sweeper.storage, as in hparams_search="
                found.append(Problem(f"callbacks.{name}", f"{why}learning_rate"))
        folders = {job.run_dir.parent for job in self.jobs} or {OUTPUTS / str(config["name"])}
        faults = {folder_fault(folder) for folder in (self.folder, *folders)}
        found += [Problem("run directory", fault) for fault in sorted(filter(None, faults))]
        if not errors_in(found):
            found += check(config) if self.search is not None else _problems(self.jobs, check)
        return found if self.search is not None else [*found, *_same(self.jobs)]


def sweep_of(config_name: str, overrides: Sequence[str], config_dirs: Sequence[str]) -> Sweep:
    """Compose a sweep as Hydra would, and each of its jobs.

    Raises:
        ConfigError: the sweep cannot be composed, or the study of its search not be read.
    """
    with hydra_of(config_dirs) as hydra:
        try:
            master = hydra.compose_config(config_name, list(overrides), run_mode=RunMode.MULTIRUN)
            parse = OverridesParser.create(hydra.config_loader).parse_overrides
            params = OmegaConf.select(master, "hydra.sweeper.params") or {}
            given = parse([f"{key}={value}" for key, value in params.items()])
            given += parse(list(master.hydra.overrides.task))
        except FAULTS as error:
            raise ConfigError(first_line(error)) from error
        roles = roles_of(master)
        lines = (str(each.input_line) for each in given if _is_of_sweep(each, roles))
        name = digest(sorted(lines), 8)
        with part_of_sweep(name), hydra_config(master):
            search = search_of(master.hydra.sweeper)
            if search is None:
                (grid,) = BasicSweeper.split_arguments(given, None)
            else:
                fixed = [
                    f"{each.get_key_element()}={each.get_value_element_as_str()}"
                    for each in given
                    if not each.is_sweep_override()
                ]
                grid = [[*params, *fixed] for params in search.params()]
            keys = {each.get_key_element() for each in given if each.is_sweep_override()}
            configs = _Configs(hydra, master, keys)
            jobs, problems = [], []
            for number, job in enumerate(grid):
                swept = those_of(keys, job)
                try:
                    jobs.append(_composed(configs.of(job), number, swept))
                except FAULTS as error:
                    problems.append(Problem(" ".join(swept), first_line(error)))
            folder = Path(master.hydra.sweep.dir)
        return Sweep(name, folder, keys, search, jobs, problems)


def those_of(keys: set[str], overrides: Iterable[str]) -> tuple[str, ...]:
    """The overrides of certain keys."""
    return tuple(each for each in overrides if each.partition("=")[0] in keys)


def _is_of_sweep(override: Override, roles: dict[str, Role]) -> bool:
    """Whether an override tells one sweep from another: not how or where it is run."""
    key = override.key_or_group
    role = roles.get(key, roles.get(root_of(key), Role.TRAINED))
    return role not in (Role.MACHINE, Role.CALL) and root_of(key) != "hydra"


class _Configs:
    """The configs of a sweep's jobs, each of which lasts till the next one.

    Composing takes Hydra a tenth of a second. So it is done once for all jobs that differ in plain
    values only; these are set one after the other, as Hydra sets them in what it has composed.
    """

    def __init__(self, hydra: Hydra, master: DictConfig, keys: set[str]) -> None:
        self.loader: Any = hydra.config_loader
        self.master, self.keys = master, keys
        self.composed: dict[tuple[tuple[str, ...], ...], DictConfig] = {}

    def of(self, overrides: list[str]) -> DictConfig:
        """The config of a job with these overrides."""
        parsed = OverridesParser.create(self.loader).parse_overrides(overrides)
        groups = self._groups(self.master)
        typed = [
            each
            for each in parsed
            if each.get_key_element() not in groups or isinstance(each.value(), dict)
        ]
        values = [each for each in typed if self._replaces(each, typed)]
        others = tuple(str(each.input_line) for each in parsed if each not in values)
        alike = others, tuple(each.key_or_group for each in values)
        if alike not in self.composed:
            new: DictConfig = self.loader.load_sweep_config(self.master, overrides)
            if self._groups(new).isdisjoint(alike[1]):
                self.composed[alike] = new
            return new
        node = self.composed[alike]
        OmegaConf.copy_cache(self.master, node)
        OmegaConf.set_readonly(node.hydra, False)  # as HydraConfig has made it
        self.loader._apply_overrides_to_config(values, node)
        task = [each for each in parsed if not each.is_hydra_override()]
        node.hydra.overrides.task = [each.input_line for each in task]
        naming = node.hydra.job.config.override_dirname
        node.hydra.job.override_dirname = get_overrides_dirname(task, **naming)
        return node

    def _replaces(self, override: Override, typed: list[Override]) -> bool:
        """Whether it is a plain value of a swept key, of which nothing else sets a part."""
        key = override.key_or_group
        alone = [each for each in typed if _overlap(each.key_or_group, key)] == [override]
        swept = key in self.keys  # and as such neither added nor of a package
        return swept and alone and not isinstance(override.value(), dict)

    @staticmethod
    def _groups(node: DictConfig) -> set[str]:
        return {str(group) for group in node.hydra.runtime.choices}


def _overlap(one: str, other: str) -> bool:
    """Whether a dotted key is another, or one is inside the other."""
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


def _composed(node: DictConfig, number: int, swept: tuple[str, ...]) -> Job:
    with open_dict(node):
        node.hydra.job.num, node.hydra.job.id = number, str(number)
    with hydra_config(node):
        run_dir = os.path.join(node.hydra.sweep.dir, node.hydra.sweep.subdir)
        with read_write(node.hydra.runtime), open_dict(node.hydra.runtime):
            node.hydra.runtime.output_dir = os.path.abspath(run_dir)
        config = expanded({str(key): _plain(node[key]) for key in node if key != "hydra"})
    return Job(swept, config, Path(os.path.abspath(run_dir)))


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def _problems(jobs: Sequence[Job], check: Check) -> list[Problem]:
    """What is wrong with the jobs' configs; a problem of some of them names the first."""
    concerned: dict[Problem, list[int]] = {}
    for number, job in enumerate(jobs):
        for problem in check(job.config | {"resume": False}):
            concerned.setdefault(problem, []).append(number)
    found = []
    for problem, (first, *others) in concerned.items():
        more = f" and {len(others)} more" if others else ""
        where = f" (job {first}: {' '.join(jobs[first].swept)}{more})"
        of_all = len(others) + 1 == len(jobs)
        found.append(problem if of_all else replace(problem, message=problem.message + where))
    return found


def _same(jobs: Sequence[Job]) -> list[Problem]:
    """Jobs that would train the same run."""
    found = []
    first: dict[Path, int] = {}
    for number, job in enumerate(jobs):
        if (other := first.setdefault(job.run_dir, number)) != number:
            one, two = (values(each.config, arguments) for each in (jobs[other], job))
            differ = sorted(k for k in one.keys() | two.keys() if one.get(k) != two.get(k))
            how = f"they differ only in {', '.join(differ)}" if differ else "they do not differ"
            found.append(Problem(f"jobs {other} and {number}", f"are the same run: {how}"))
    return found
