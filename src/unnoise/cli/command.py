"""What the commands share: check everything the user typed, then hand over to Hydra."""

import sys
from argparse import Namespace
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any

from hydra._internal.utils import _run_hydra, get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from unnoise.cli import failures
from unnoise.config.compose import CONF, check_command_line
from unnoise.config.problems import ConfigError, Problem, report

Check = Callable[[dict[str, Any]], Iterable[list[Problem]]]
Job = Callable[[dict[str, Any]], Any]


def run(config_name: str, check: Check, job: Job) -> None:
    """Compose ``conf/<config_name>.yaml`` with the command line, check it whole, and run the job.

    All problems are printed, as soon as ``check`` gives them, and end the process with status 2
    before anything is run. Under --multirun each job's own configuration is checked again.
    """
    arguments = typed()
    config, found = parse(config_name)
    if _only_asks(arguments):  # even to be shown, a config has Hydra set up its logging
        stop_if_wrong([[problem for problem in found if problem.key.startswith("hydra.")]])
    else:
        stop_if_wrong(chain([found], [] if config is None else check(config)))

    def task(node: DictConfig) -> Any:
        config = plain(node)
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            errors = [p for found in check(config) for p in found if p.severity == "error"]
            if errors:
                job_node = HydraConfig.get().job
                print(
                    f"job {job_node.num} of the sweep ends it: {job_node.override_dirname}",
                    file=sys.stderr,
                )
                print(report(errors), file=sys.stderr)
                sys.exit(2)
        try:
            return job(config)
        except ConfigError as error:
            print(error, file=sys.stderr)
            sys.exit(2)
        except KeyboardInterrupt:
            print("stopped", file=sys.stderr)
            sys.exit(130)
        except Exception as error:
            if (reason := failures.told(error, config)) is None:
                raise
            print(reason, file=sys.stderr)
            sys.exit(1)

    start(arguments, config_name, task)


def typed() -> Namespace:
    """The command line: options and overrides, in any order."""
    arguments = get_args_parser().parse_intermixed_args()
    if arguments.config_path:
        sys.exit("--config-path would hide the shipped configs: use --config-dir, which adds yours")
    if arguments.experimental_rerun:
        sys.exit("--experimental-rerun reads a pickle, which can run anything: it is not supported")
    return arguments


def start(arguments: Namespace, config_name: str, task: Callable[[DictConfig], Any]) -> None:
    """Have Hydra do what the command line asks for, after ``parse`` has found it right."""
    _run_hydra(arguments, get_args_parser(), task, str(CONF), config_name)


def parse(config_name: str) -> tuple[dict[str, Any] | None, list[Problem]]:
    """The config that the command line asks for, and what is wrong with it."""
    arguments = typed()
    folders = [arguments.config_dir] if arguments.config_dir else []
    return check_command_line(arguments.config_name or config_name, arguments.overrides, folders)


def is_sweep() -> bool:
    """Whether the command line asks for several runs."""
    arguments = typed()
    return bool(arguments.multirun) and not _only_asks(arguments)


def _only_asks(arguments: Namespace) -> bool:
    """Whether the command line asks Hydra to show something rather than to run."""
    questions = ("help", "hydra_help", "cfg", "info", "shell_completion")
    return any(getattr(arguments, question) for question in questions)


def plain(node: DictConfig) -> dict[str, Any]:
    """A composed config, resolved, in plain containers."""
    resolved = OmegaConf.to_container(node, resolve=True)
    assert isinstance(resolved, dict)
    return {str(key): value for key, value in resolved.items()}


def stop_if_wrong(batches: Iterable[list[Problem]]) -> None:
    """Print problems as they are found, and end with status 2 if there are errors among them."""
    wrong = False
    for found in batches:
        if found:
            print(report(found), file=sys.stderr, flush=True)
        wrong |= any(problem.severity == "error" for problem in found)
    if wrong:
        sys.exit(2)
