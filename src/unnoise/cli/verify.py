"""unnoise-verify: does this machine compute what the papers say?"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from unnoise.cli.terminal import any_encoding

ABOUT = """Compare what this machine computes with published numbers and closed forms: schedules,
parameter counts, samplers on Gaussian data, random numbers, networks in float32 and bf16, metrics.
Takes about ten seconds. The exit status is 1 if a check fails."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all checks, print the table, and end with status 0, or 1 if a check fails."""
    any_encoding()
    parser = argparse.ArgumentParser("unnoise-verify", description=ABOUT)
    parser.add_argument(
        "--device", default="auto", help="auto (a GPU if there is one), cpu, cuda, mps"
    )
    parser.add_argument(
        "--json",
        type=lambda text: Path(text).expanduser(),
        metavar="PATH",
        help="also write the results as JSON",
    )
    options = parser.parse_args(arguments)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else cuBLAS is not deterministic

    from unnoise.config.faults import device_fault
    from unnoise.config.quick_imports import quick_imports
    from unnoise.distributed.devices import named_device
    from unnoise.evaluation.selftest import table
    from unnoise.evaluation.selftest.check import Outcome, outcomes
    from unnoise.files import file_fault, write_text

    with quick_imports():
        from unnoise.evaluation.selftest.checks import CHECKS

    faults = {"--device": device_fault(options.device)}
    if options.json is not None:
        faults["--json"] = file_fault(options.json)
    if any(faults.values()):
        parser.error("; ".join(f"{name}: {fault}" for name, fault in faults.items() if fault))

    device = named_device(options.device)
    print(table.heading())
    found: list[Outcome] = []
    for outcome in outcomes(CHECKS, device):
        if not found or outcome.check.group != found[-1].check.group:
            print(outcome.check.group)
        print(table.row(outcome), flush=True)
        found.append(outcome)
    versions, hardware = table.versions(), table.hardware(device)
    print(f"\n{table.summary(found, versions, hardware)}")
    passed = all(outcome.passed for outcome in found)
    if options.json is not None:
        content = {
            "passed": passed,
            "versions": versions,
            "hardware": hardware,
            "checks": [table.plain(outcome) for outcome in found],
        }
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        write_text(options.json, text)
    sys.exit(0 if passed else 1)
