"""What is wrong with a sweep, before any of its jobs is run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unnoise.cli.command import Check, all_of, errors_in
from unnoise.cli.sweep.jobs import Job, Sweep
from unnoise.config.problems import Problem
from unnoise.config.schema import arguments
from unnoise.runs.identity import values


def problems(
    sweep: Sweep, config: dict[str, Any], check: Check, check_last: Check
) -> list[Problem]:
    """All that is wrong with a sweep: its jobs, or what a search keeps fixed.

    ``check_last`` looks only where nothing else is wrong.
    """
    found = list(sweep.problems)
    if isinstance(config["resume"], str):
        told = "names one run, but a sweep finds the runs of its jobs by itself: leave it out"
        found.append(Problem("resume", told))
    prunes = [
        f"callbacks.{name}"
        for name, each in config["callbacks"].items()
        if isinstance(each, dict) and "pruner" in each
    ]
    if prunes and (sweep.study is None or sweep.study.storage is None):
        told = "needs a search with hydra.sweeper.storage, as in hparams_search=learning_rate"
        found.append(Problem(prunes[0], told))
    for look in (check, check_last):
        if not errors_in(found):
            grid = sweep.study is None
            found += _problems_of(sweep.jobs, look) if grid else all_of(look, config)
    return found + (_same(sweep.jobs) if sweep.study is None else [])


def _problems_of(jobs: Sequence[Job], check: Check) -> list[Problem]:
    """What is wrong with the jobs' configs; a problem of some of them names the first."""
    concerned: dict[Problem, list[int]] = {}
    for number, job in enumerate(jobs):
        for problem in all_of(check, job.config | {"resume": False}):
            concerned.setdefault(problem, []).append(number)
    found = []
    for problem, numbers in concerned.items():
        where = ""
        if len(numbers) < len(jobs):
            others = f" and {len(numbers) - 1} more" if len(numbers) > 1 else ""
            where = f" (job {numbers[0]}: {' '.join(jobs[numbers[0]].swept)}{others})"
        found.append(Problem(problem.key, problem.message + where, problem.severity))
    return found


def _same(jobs: Sequence[Job]) -> list[Problem]:
    """Jobs that would train the same run."""
    found = []
    first: dict[Path, int] = {}
    for number, job in enumerate(jobs):
        other = first.setdefault(job.run_dir, number)
        if other != number:
            one, two = (values(each.config, arguments) for each in (jobs[other], job))
            differ = sorted(k for k in one.keys() | two.keys() if one.get(k) != two.get(k))
            how = f"they differ only in {', '.join(differ)}" if differ else "they do not differ"
            found.append(Problem(f"jobs {other} and {number}", f"are the same run: {how}"))
    return found
