"""unnoise-evaluate measure=adherence: the share of pictures that show what was asked for."""

import dataclasses
import sys
import time
from collections.abc import Iterator
from typing import Any

from unnoise.cli.checks import right_keys
from unnoise.cli.measuring import (
    Count,
    RunRequest,
    Scale,
    data_problems,
    place_problems,
    told,
    write_rows,
)
from unnoise.config.nodes import instantiate
from unnoise.config.problems import ConfigError, Problem
from unnoise.config.schema import construction_problems, problems
from unnoise.diffusion.samplers import Sampler
from unnoise.distributed.devices import named_device
from unnoise.evaluation.adherence import Row, table
from unnoise.evaluation.judges import (
    drawn_rows,
    find_judges,
    load_judge,
    questions,
    real_rows,
    targets,
)
from unnoise.files import file_digest
from unnoise.models.classifier import classifier_file


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request(RunRequest):
    """What is to be measured: one field for each key of ``conf/measure/adherence.yaml``."""

    n: Count
    guidance: list[Scale]
    judge: str | list[str] | None
    classifier: str | None
    sampler: Sampler | None
    steps: Count | None

    @property
    def judges(self) -> list[str] | None:
        """What is given, as a list."""
        return [self.judge] if isinstance(self.judge, str) else self.judge


def check(config: dict[str, Any]) -> Iterator[list[Problem]]:
    """All that is wrong with a request, the run, its data and the judges included."""
    found = problems(config, Request)
    right = right_keys(config, found)
    whole = not found and right == set(config)
    found += construction_problems(config, sorted({"sampler"} & right), device="cpu")
    found += place_problems(config, right)
    yield found
    if whole and not found:
        yield list(_rules(Request(**{key: instantiate(value) for key, value in config.items()})))


def _rules(request: Request) -> Iterator[Problem]:
    """What must hold between the request and the run."""
    try:
        trained = request.trained()
    except (ValueError, ConfigError) as error:
        yield Problem("run", str(error))
        return
    wrong = list(data_problems(trained.config, request.data_root))
    yield from wrong
    if wrong:
        return
    sampler = request.sampler or trained.sampler
    try:
        trained.model.schedule.grid(request.steps or sampler.steps, sampler.spacing)
    except ValueError as error:
        yield Problem("steps", str(error))
    if not request.guidance:
        yield Problem("guidance", "is empty: give scales, as guidance=[1,2]")
    try:
        for scale in request.guidance if request.classifier is None else ():
            trained.check_guidance(scale)
    except ValueError as error:
        yield Problem("guidance", str(error))
    try:
        wanted = targets(trained, guided=request.classifier is not None)
    except ValueError as error:
        yield Problem("run", str(error))
        return
    try:
        if "label" not in wanted:
            questions(request.source(), wanted, request.n)
    except ValueError as error:
        yield Problem("n" if str(error).startswith("n ") else "run", str(error))
    judges, found = find_judges(request.judges, wanted, trained.config["data"])
    yield from found
    if request.classifier is not None:
        _, found = find_judges([request.classifier], wanted, trained.config["data"])
        yield from (dataclasses.replace(problem, key="classifier") for problem in found)
        if classifier_file(request.classifier) in judges.values():
            reason = "also guides, and so judges itself: train another with another seed"
            yield Problem("judge", reason, "warning")


def evaluate(config: dict[str, Any]) -> None:
    """Measure, print, write, and say where."""
    request = Request(**{key: instantiate(value) for key, value in config.items()})
    started, trained, source = time.monotonic(), request.trained(), request.source()
    wanted = targets(trained, guided=request.classifier is not None)
    files, _ = find_judges(request.judges, wanted, trained.config["data"])
    guide = None if request.classifier is None else classifier_file(request.classifier)
    try:
        source.prepare()
        device = named_device(request.device)
        judges = {target: load_judge(path).to(device) for target, path in files.items()}
        asked_for = questions(source, wanted, request.n)
        rows: list[Row] = [row for each in asked_for for row in real_rows(each, judges)]
        for question in asked_for:
            for scale in request.guidance:
                rows += drawn_rows(
                    trained,
                    question,
                    judges,
                    sampler=request.sampler or trained.sampler,
                    steps=request.steps,
                    scale=scale,
                    n=request.n,
                    seed=request.seed,
                    batch_size=request.batch_size,
                    classifier=None if guide is None else load_judge(guide).to(device),
                    progress=sys.stderr.isatty(),
                )
    except (FileNotFoundError, ValueError) as error:  # what only the files could tell
        raise ConfigError(str(error)) from error
    print(table(rows))
    about = {
        "sampler": config["sampler"] or trained.config["sampler"],
        **{key: config[key] for key in ("n", "steps", "guidance", "seed", "averaged")},
        "classifier": None if guide is None else file_digest(guide),
        "judges": {target: file_digest(path) for target, path in files.items()},
    }
    written = write_rows(trained.checkpoint, "adherence", about, [row.values for row in rows])
    print(f"\nadherence in {time.monotonic() - started:.0f} s\n{told(written)}")
