"""unnoise-verify: does this machine compute what the papers say?"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

ABOUT = """Hold the installed versions and the hardware against published numbers and known answers:
schedules, parameter counts, samplers on Gaussian data, random numbers, networks in float32 and
bf16, metrics. Takes less than a minute; the exit status is 1 if a check fails."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all checks, print the table, and end with status 0, or 1 if a check fails."""
    parser = argparse.ArgumentParser("unnoise-verify", description=ABOUT)
    parser.add_argument(
        "--device", default="auto", help="auto (an accelerator where there is one), cpu, cuda, mps"
    )
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the outcomes there, too")
    asked = parser.parse_args(arguments)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else cuBLAS is not deterministic

    from unnoise.cli.checks import device_problems, folder_problems
    from unnoise.distributed.devices import named_device
    from unnoise.evaluation.selftest import machine, table
    from unnoise.evaluation.selftest.check import Outcome, outcomes
    from unnoise.evaluation.selftest.checks import checks
    from unnoise.files import write_durably
    from unnoise.models.ema import EMA

    problems = [f"--device: {p.message}" for p in device_problems(asked.device)]
    if asked.json is not None:
        problems += [f"--json: {p.message}" for p in folder_problems("json", asked.json.parent)]
        if asked.json.is_dir():
            problems.append(f"--json: {asked.json} is a folder, not a file")
    if problems:
        parser.error("; ".join(problems))

    device = named_device(asked.device)
    print(table.heading())
    found: list[Outcome] = []
    for outcome in outcomes(checks(EMA), device):
        if not found or outcome.check.group != found[-1].check.group:
            print(outcome.check.group)
        print(table.row(outcome), flush=True)
        found.append(outcome)
    versions, hardware = machine.versions(), machine.hardware(device)
    print(f"\n{table.summary(found, versions, hardware)}")
    passed = all(outcome.passed for outcome in found)
    if asked.json is not None:
        content = {
            "passed": passed,
            "versions": versions,
            "hardware": hardware,
            "checks": [table.plain(outcome) for outcome in found],
        }
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        write_durably(asked.json, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    sys.exit(0 if passed else 1)
