"""What Hydra does for a command: show a config, run a job, or several."""

import os
import string
import sys
import textwrap
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from hydra._internal.utils import get_args_parser, run_and_report
from omegaconf import DictConfig

from unnoise.config.compose import CONF, hydra_of
from unnoise.files import not_written


def folders(arguments: Namespace) -> list[str]:
    """The folders of configs that were typed."""
    return [os.path.expanduser(arguments.config_dir)] if arguments.config_dir else []


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

        run_and_report(_in_a_line(work))


def _in_a_line(work: Callable[[], None]) -> Callable[[], None]:
    """``work``, ended with status 1 and a line where what Hydra notes itself cannot be written."""

    def watched() -> None:
        try:
            work()
        except OSError as error:
            if (reason := not_written(error)) is None:
                raise
            print(reason, file=sys.stderr)
            sys.exit(1)

    return watched


def help_text(config_name: str, arguments: Namespace) -> str:
    """The command's help, with the groups of the shipped configs and of further folders."""
    entries = yaml.safe_load((CONF / f"{config_name}.yaml").read_text(encoding="utf-8"))["defaults"]
    defaults = {
        key: value for each in entries if isinstance(each, dict) for key, value in each.items()
    }
    if "family" in defaults:
        for path in (CONF / "family").glob("*.yaml"):
            brought = yaml.safe_load(path.read_text(encoding="utf-8"))["defaults"]
            keys = (key for each in brought if isinstance(each, dict) for key in each)
            defaults |= {key.removeprefix("/"): None for key in keys if key.startswith("/")}
    chosen = defaults.pop("override hydra/help")
    template = yaml.safe_load(
        (CONF / "hydra" / "help" / f"{chosen}.yaml").read_text(encoding="utf-8")
    )["template"]
    lines = []
    searched = [CONF, *map(Path, folders(arguments))]
    for group in sorted(key for key in defaults if " " not in key):
        files = [f for folder in searched for f in (folder / group).glob("*.yaml")]
        options = ", ".join(sorted({file.stem for file in files}))
        lines.append(textwrap.fill(f"{group}: {options}", 100, subsequent_indent="  "))
    return string.Template(template).substitute(APP_CONFIG_GROUPS="\n".join([*lines, ""]))
