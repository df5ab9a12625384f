"""The jobs of a sweep, composed before any of them is run."""

import os
from collections.abc import Iterable, Sequence
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
from unnoise.config.compose import FAULTS, hydra_config, hydra_of
from unnoise.config.identity import part_of_sweep, roles_of, root_of
from unnoise.config.problems import ConfigError, Problem
from unnoise.config.refusals import first_line
from unnoise.runs.identity import Role, digest


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
            params = OmegaConf.select(master, "hydra.sweeper.params") or {}
            given = parse([f"{key}={value}" for key, value in params.items()])
            given += parse(list(master.hydra.overrides.task))
        except FAULTS as error:
            raise ConfigError(first_line(error)) from error
        roles = roles_of(master)
        lines = (str(each.input_line) for each in given if _is_of_sweep(each, roles))
        name = digest(sorted(lines), 8)
        with part_of_sweep(name), hydra_config(master):
            study = search.of(master.hydra.sweeper)
            if study is None:
                (grid,) = BasicSweeper.split_arguments(given, None)
            else:
                fixed = [_text(each) for each in given if not each.is_sweep_override()]
                grid = [[*params, *fixed] for params in study.params()]
            keys = {each.get_key_element() for each in given if each.is_sweep_override()}
            jobs, problems = [], []
            for number, job in enumerate(grid):
                swept = those_of(keys, job)
                try:
                    jobs.append(_composed(hydra, master, number, job, swept))
                except FAULTS as error:
                    problems.append(Problem(" ".join(swept), first_line(error)))
        return Sweep(name, keys, study, jobs, problems)


def those_of(keys: set[str], overrides: Iterable[str]) -> tuple[str, ...]:
    """The overrides of certain keys."""
    return tuple(each for each in overrides if each.partition("=")[0] in keys)


def _text(override: Override) -> str:
    return f"{override.get_key_element()}={override.get_value_element_as_str()}"


def _is_of_sweep(override: Override, roles: dict[str, Role]) -> bool:
    """Whether an override tells one sweep from another: not how or where it is run."""
    key = override.key_or_group
    role = roles.get(key, roles.get(root_of(key), Role.TRAINED))
    return role not in (Role.MACHINE, Role.CALL) and root_of(key) != "hydra"


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
