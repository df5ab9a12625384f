"""The jobs of a sweep, composed before any of them is run."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.hydra import Hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from unnoise.cli.sweep import search
from unnoise.config.compose import FAULTS, first_line, hydra_config, hydra_of
from unnoise.config.identity import NAMELESS, digest, leaves, sweep_told
from unnoise.config.problems import ConfigError, Problem

TOLD_APART = ("name", "metric")
"""Keys that do not tell one run from another, but one sweep."""


@dataclass(frozen=True)
class Job:
    """One run of a sweep: what the sweep sets for it, its resolved config and its directory."""

    swept: tuple[str, ...]
    config: dict[str, Any]
    run_dir: Path


@dataclass(frozen=True)
class Sweep:
    """What ``-m`` asks for: all jobs of a grid, or those that a search has chosen so far.

    ``digest`` is of what is typed and swept, however and on what it is run; ``study`` is the
    search, ``keys`` are those that it or the grid sets, and ``problems`` says which jobs cannot
    be composed.
    """

    digest: str
    keys: set[str]
    study: search.Search | None
    jobs: list[Job]
    problems: list[Problem]


def sweep_of(config_name: str, overrides: Sequence[str], config_dirs: Sequence[str]) -> Sweep:
    """Compose a sweep as Hydra would, and each of its jobs.

    Raises:
        ConfigError: the sweep cannot be composed, or the study of its search not be read.
    """
    with hydra_of(config_dirs) as hydra:
        try:
            master = hydra.compose_config(config_name, list(overrides), run_mode=RunMode.MULTIRUN)
            parse = OverridesParser.create(hydra.config_loader).parse_overrides
            swept = OmegaConf.select(master, "hydra.sweeper.params") or {}
            given = parse([f"{key}={value}" for key, value in swept.items()])
            given += parse(list(master.hydra.overrides.task))
        except FAULTS as error:
            raise ConfigError(first_line(error)) from error
        name = digest(sorted(str(each.input_line) for each in given if not _nameless(each)), 8)
        with sweep_told(name), hydra_config(master):
            study = search.of(master.hydra.sweeper)
            if study is None:
                (grid,) = BasicSweeper.split_arguments(given, None)
            else:
                fixed = [_text(each) for each in given if not each.is_sweep_override()]
                grid = [[*params, *fixed] for params in study.params()]
            keys = {each.get_key_element() for each in given if each.is_sweep_override()}
            jobs, problems = [], []
            for number, job in enumerate(grid):
                told = those_of(keys, job)
                try:
                    jobs.append(_composed(hydra, master, number, job, told))
                except FAULTS as error:
                    problems.append(Problem(" ".join(told), first_line(error)))
        return Sweep(name, keys, study, jobs, problems)


def those_of(keys: set[str], overrides: Iterable[str]) -> tuple[str, ...]:
    """The overrides of certain keys."""
    return tuple(each for each in overrides if each.partition("=")[0] in keys)


def _text(override: Override) -> str:
    return f"{override.get_key_element()}={override.get_value_element_as_str()}"


def _nameless(override: Override) -> bool:
    key = override.key_or_group
    root = key.partition(".")[0].partition("/")[0]
    return key == "data.root" or (root in NAMELESS and root not in TOLD_APART)


def _composed(
    hydra: Hydra, master: DictConfig, number: int, overrides: list[str], swept: tuple[str, ...]
) -> Job:
    node = hydra.config_loader.load_sweep_config(master, overrides)
    with open_dict(node):
        node.hydra.job.num, node.hydra.job.id = number, str(number)
    with hydra_config(node):
        run_dir = os.path.join(node.hydra.sweep.dir, node.hydra.sweep.subdir)
        with read_write(node.hydra.runtime), open_dict(node.hydra.runtime):
            node.hydra.runtime.output_dir = os.path.abspath(run_dir)
        ours = OmegaConf.masked_copy(node, [str(key) for key in node if key != "hydra"])
        config: Any = OmegaConf.to_container(ours, resolve=True)
    return Job(swept, config, Path(os.path.abspath(run_dir)))


def problems_of(
    jobs: Sequence[Job], check: Callable[[dict[str, Any]], Iterable[list[Problem]]]
) -> list[Problem]:
    """What is wrong with the jobs' configs, and with their being different runs.

    What is wrong with all of them is told once, what is not with the jobs that it concerns.
    """
    concerned: dict[Problem, list[int]] = {}
    for number, job in enumerate(jobs):
        for found in check(job.config | {"resume": False}):
            for problem in found:
                concerned.setdefault(problem, []).append(number)
    told = []
    for problem, numbers in concerned.items():
        where = ""
        if len(numbers) < len(jobs):
            others = f" and {len(numbers) - 1} more" if len(numbers) > 1 else ""
            where = f" (job {numbers[0]}: {' '.join(jobs[numbers[0]].swept)}{others})"
        told.append(Problem(problem.key, problem.message + where, problem.severity))
    return told + _same(jobs)


def _same(jobs: Sequence[Job]) -> list[Problem]:
    """Jobs that would train the same run."""
    found = []
    first: dict[Path, int] = {}
    for number, job in enumerate(jobs):
        other = first.setdefault(job.run_dir, number)
        if other != number:
            one, two = dict(leaves(jobs[other].config)), dict(leaves(job.config))
            differ = sorted(k for k in one.keys() | two.keys() if one.get(k) != two.get(k))
            how = f"they differ only in {', '.join(differ)}" if differ else "they do not differ"
            found.append(Problem(f"jobs {other} and {number}", f"are the same run: {how}"))
    return found
