"""What the commands share: check everything the user typed, then hand over to Hydra."""

import atexit
import gc
import sys
from argparse import Namespace
from collections.abc import Callable
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from unnoise.cli.hydra_app import folders, help_text, start
from unnoise.cli.typed import only_shows, typed
from unnoise.config.compose import check_command_line
from unnoise.config.problems import Check, ConfigError, Problem, errors_in, report
from unnoise.config.typed import expanded
from unnoise.distributed.environment import place

Job = Callable[[dict[str, Any]], Any]
Complete = Callable[[Namespace, dict[str, Any], list[Problem], Check], str | None]
"""What a command line still lacks, given its config, what is wrong so far, and the check."""


def run(config_name: str, check: Check, job: Job, complete: Complete = lambda *_: None) -> None:
    """Compose ``conf/<config_name>.yaml`` with the command line, check it whole, and run the job.

    All problems are printed in one list, and end the process with status 2. Under --multirun each
    job's configuration is checked again.
    """
    arguments = typed()
    if arguments.help:
        print(help_text(config_name, arguments))
        sys.exit(0)
    gc.disable()  # imports leave no garbage, but looking for it takes a third of PyTorch's time
    config, found = ({}, []) if arguments.shell_completion else parse(config_name)
    if config is not None and not only_shows(arguments):
        if (more := complete(arguments, config, found, check)) is not None:
            sys.argv.append(more)
            arguments = typed()
            config, found = parse(config_name)
        found += [] if config is None else check(config)
    stop_if_wrong(found)
    gc.enable()

    def task(node: DictConfig) -> Any:
        config = plain(node)
        if HydraConfig.get().mode == RunMode.MULTIRUN and (errors := errors_in(check(config))):
            of = HydraConfig.get().job
            print(f"job {of.num} of the sweep ends it: {of.override_dirname}", file=sys.stderr)
            stop_if_wrong(errors)
        try:
            return job(config)
        except ConfigError as error:
            print(error, file=sys.stderr)
            sys.exit(2)
        except KeyboardInterrupt:
            print("stopped", file=sys.stderr)
            sys.exit(130)
        except Exception as error:
            from unnoise.training.failures import explanation

            if (reason := explanation(error, config)) is None:
                raise
            print(reason, file=sys.stderr)
            sys.exit(1)

    start(arguments, config_name, task)


def parse(config_name: str) -> tuple[dict[str, Any] | None, list[Problem]]:
    """The config of the command line, and what is wrong with it."""
    arguments = typed()
    name = arguments.config_name or config_name
    sweep = bool(arguments.multirun)
    runs = not sweep and not only_shows(arguments) and place().rank == 0
    return check_command_line(name, arguments.overrides, folders(arguments), sweep, runs)


def plain(node: DictConfig) -> dict[str, Any]:
    """A composed config, resolved, in plain containers."""
    resolved: Any = OmegaConf.to_container(node, resolve=True)
    return {str(key): expanded(value) for key, value in resolved.items()}


def stop_if_wrong(found: list[Problem]) -> None:
    """Print problems in one list, and end with status 2 if there are errors among them."""
    if found:
        print(report(found), file=sys.stderr, flush=True)
    if errors_in(found):
        atexit.register(gc.freeze)  # else the interpreter looks through all of PyTorch at its end
        sys.exit(2)
