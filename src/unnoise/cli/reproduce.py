"""unnoise-reproduce: train a reference recipe, and compare its numbers with the published ones."""

import argparse
import math
import sys
from pathlib import Path
from typing import Any

from unnoise.cli import evaluate, timing, wanted
from unnoise.cli.terminal import any_encoding
from unnoise.config.compose import check_command_line
from unnoise.config.identity import directory_of
from unnoise.config.nodes import instantiate
from unnoise.config.problems import ConfigError, Problem, errors_in, report
from unnoise.evaluation import published
from unnoise.evaluation.published import Point, Reference
from unnoise.evaluation.results import Score, read
from unnoise.files import write_text
from unnoise.runs.checkpoints import checkpoints
from unnoise.runs.layout import shown, step_of
from unnoise.runs.wanted import Spent, spent

USES = """examples:
  unnoise-reproduce                      the references
  unnoise-reproduce sprites              minutes on a laptop
  unnoise-reproduce cifar10_ddpm         days on one GPU; killed, the same command goes on
  unnoise-reproduce cifar10_ddpm trainer=ddp data.root=…     any keys of unnoise-train
"""


def main() -> None:
    """The command's entry point."""
    any_encoding()
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("unnoise-reproduce", None, __doc__, USES, formatter_class=raw)
    parser.add_argument("name", nargs="?", help="of conf/published; without it they are listed")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="keys of unnoise-train")
    parser.add_argument("--config-dir", help="a folder with configs of yours")
    arguments = parser.parse_args()
    folders = [arguments.config_dir] if arguments.config_dir else []
    paths = [Path(each) for each in folders]
    try:
        if arguments.name is None:
            for name in published.references(paths):
                print(f"{name:<20} {published.reference(name, paths).about}")
            return
        chosen = published.reference(arguments.name, paths)
        reproduce(arguments.name, chosen, arguments.overrides, folders)
    except (ConfigError, FileNotFoundError, ValueError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        sys.exit(130)


def reproduce(name: str, chosen: Reference, more: list[str], folders: list[str]) -> None:
    """Train to each point, measure there what is not measured yet, and print the table."""
    own = [*chosen.run.train, *more]
    wrong = wanted.checked(chosen.run, more, folders, fixed=True)[1]
    for k, point in enumerate(chosen.points):
        _, found = measuring(point, folders)
        wrong += [Problem(f"points.{k}.measure", str(each)) for each in found]
    if wrong:
        raise ConfigError(report(wrong))
    if chosen.run.first is not None:
        first = [*chosen.run.first.train, *more]
        own.append(f"from={wanted.find_or_train(first, folders, name)}")
    config, _ = wanted.composed([*own, "resume=true"], folders)
    instantiate(config["data"]).check()
    run, last = Path(directory_of(config)), config["max_steps"]
    rate = timing.timed(own, folders)
    begun = step_of(saved[-1]) if (saved := checkpoints(run)) else 0
    rest = Spent(last, rate.rate * (last - begun), rate.unit)
    steps = f"{last - begun:,} of {last:,} steps are to be trained"
    steps += f", {rate.rate:.2g} {rate.unit} each"
    print(f"{name}: {chosen.about}\n{steps}: about {rest}, without drawing", flush=True)
    rows = []
    for point in sorted(chosen.points, key=lambda each: each.share):
        step = math.ceil(point.share * last)
        if (score := published.measured(run, point, step)) is None:
            if not (run / "checkpoints" / f"step_{step:08d}.ckpt").exists():
                if checkpoints(run) and step_of(checkpoints(run)[-1]) > step:
                    print(f"{shown(run)} is past step {step}, which was not measured", flush=True)
                    continue
                until = [f"until={step}"] if step < last else []
                wanted.train([*own, "resume=true", *until], folders)
                run = Path(directory_of(config))
            score = measure(run, point, step, folders)
        rows += published.compared(point, step, score)
        print(f"\n{published.table(rows)}\n{cost(run, config)}", flush=True)
        about = score.fingerprint
        print(f"{about.count} pictures against {about.reference}, features by {about.extractor}\n")


def measuring(
    point: Point, folders: list[str], checkpoint: Path | None = None
) -> tuple[dict[str, Any], list[Problem]]:
    """The config of a point's measure, and the errors in it; what a run decides only with one."""
    of = [] if checkpoint is None else [f"run={checkpoint}"]
    config, found = check_command_line("evaluate", [*of, *point.measure], folders, sweep=False)
    found += [] if config is None else evaluate.check(config)
    return config or {}, [each for each in errors_in(found) if of or each.key != "run"]


def measure(run: Path, point: Point, step: int, folders: list[str]) -> Score:
    """Measure a checkpoint, as unnoise-evaluate does, and keep the result."""
    config, wrong = measuring(point, folders, run / "checkpoints" / f"step_{step:08d}.ckpt")
    if wrong:
        raise ConfigError(report(wrong))
    result = instantiate(config).measure(config)
    source = next(path for path in result.files if path.suffix == ".json")
    write_text(published.kept(run, point, step), source.read_text(encoding="utf-8"))
    return read(source)[0]


def cost(run: Path, config: dict[str, Any]) -> str:
    """What the training took so far."""
    took = spent(run, config["batch_size"])
    return f"seed {config['seed']}, {shown(run)}" + (f", {took}" if took else "")
