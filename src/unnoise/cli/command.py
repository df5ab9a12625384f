"""What the commands share: check everything the user typed, then hand over to Hydra."""

import gc
import string
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from hydra._internal.utils import get_args_parser, run_and_report
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from unnoise.cli import failures
from unnoise.config.compose import CONF, check_command_line, hydra_of
from unnoise.config.problems import ConfigError, Problem, report

Check = Callable[[dict[str, Any]], Iterable[list[Problem]]]
Job = Callable[[dict[str, Any]], Any]


def run(config_name: str, check: Check, job: Job, check_last: Check | None = None) -> None:
    """Compose ``conf/<config_name>.yaml`` with the command line, check it whole, and run the job.

    All problems are printed in one list and end the process with status 2 before anything is run;
    ``check_last`` looks only where nothing else is wrong. Under --multirun each job's own
    configuration is checked again.
    """
    arguments = typed()
    if arguments.help:
        print(help_text(config_name, arguments))
        sys.exit(0)
    gc.disable()  # imports leave no garbage
    config, found = ({}, []) if arguments.shell_completion else parse(config_name)
    if config is not None and not _only_shows(arguments):
        found += all_of(check, config)
        if check_last is not None and not errors_in(found):
            found += all_of(check_last, config)
    stop_if_wrong(found)
    gc.enable()

    def task(node: DictConfig) -> Any:
        config = plain(node)
        if HydraConfig.get().mode == RunMode.MULTIRUN and (
            errors := errors_in(all_of(check, config))
        ):
            of = HydraConfig.get().job
            print(f"job {of.num} of the sweep ends it: {of.override_dirname}", file=sys.stderr)
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


def folders(arguments: Namespace) -> list[str]:
    """The folders of configs that were typed."""
    return [arguments.config_dir] if arguments.config_dir else []


def start(arguments: Namespace, config_name: str, task: Callable[[DictConfig], Any]) -> None:
    """Have Hydra do what the command line asks for, after ``parse`` has found it right."""
    name, overrides = arguments.config_name or config_name, arguments.overrides
    with hydra_of(folders(arguments)) as hydra:

        def work() -> None:
            if arguments.cfg:
                package, resolve = arguments.package, arguments.resolve
                hydra.show_cfg(name, overrides, arguments.cfg, package, resolve)
            elif arguments.info:
                hydra.show_info(arguments.info, name, overrides)
            elif arguments.hydra_help:
                hydra.hydra_help(name, get_args_parser(), arguments)
            elif arguments.shell_completion:
                hydra.shell_completion(name, overrides)
            elif arguments.multirun:
                hydra.multirun(name, task, [*overrides, "hydra.mode=MULTIRUN"])
            else:
                hydra.run(name, task, [*overrides, "hydra.mode=RUN"])

        run_and_report(work)


def parse(config_name: str) -> tuple[dict[str, Any] | None, list[Problem]]:
    """The config that the command line asks for, and what is wrong with it."""
    arguments = typed()
    name = arguments.config_name or config_name
    return check_command_line(name, arguments.overrides, folders(arguments))


def help_text(config_name: str, arguments: Namespace) -> str:
    """The command's help, with the groups of the shipped configs and of further folders."""
    entries = yaml.safe_load((CONF / f"{config_name}.yaml").read_text())["defaults"]
    defaults = {
        key: value for each in entries if isinstance(each, dict) for key, value in each.items()
    }
    chosen = defaults.pop("override hydra/help")
    template = yaml.safe_load((CONF / "hydra" / "help" / f"{chosen}.yaml").read_text())["template"]
    lines = []
    searched = [CONF, *map(Path, folders(arguments))]
    for group in sorted(key for key in defaults if " " not in key):
        files = [f for folder in searched for f in (folder / group).glob("*.yaml")]
        lines.append(f"{group}: {', '.join(sorted({file.stem for file in files}))}\n")
    return string.Template(template).substitute(APP_CONFIG_GROUPS="".join(lines))


def is_sweep() -> bool:
    """Whether the command line asks for several runs."""
    arguments = typed()
    return bool(arguments.multirun) and not (arguments.help or _only_shows(arguments))


def _only_shows(arguments: Namespace) -> bool:
    """Whether the command line asks Hydra to show something rather than to run."""
    questions = ("hydra_help", "cfg", "info", "shell_completion")
    return any(getattr(arguments, question) for question in questions)


def plain(node: DictConfig) -> dict[str, Any]:
    """A composed config, resolved, in plain containers."""
    resolved = OmegaConf.to_container(node, resolve=True)
    assert isinstance(resolved, dict)
    return {str(key): value for key, value in resolved.items()}


def all_of(check: Check, config: dict[str, Any]) -> list[Problem]:
    """All that a check finds."""
    return [problem for batch in check(config) for problem in batch]


def errors_in(found: Iterable[Problem]) -> list[Problem]:
    """Those that keep a config from being run."""
    return [problem for problem in found if problem.severity == "error"]


def stop_if_wrong(found: list[Problem]) -> None:
    """Print problems in one list, and end with status 2 if there are errors among them."""
    if found:
        print(report(found), file=sys.stderr, flush=True)
    if errors_in(found):
        gc.freeze()  # else the interpreter looks through all that PyTorch brings before it ends
        sys.exit(2)
