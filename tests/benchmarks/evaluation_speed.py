"""Drawing, evaluating and reporting, each beside the least that its work can take.

- 1000 pictures by DPM-Solver++ in 20 steps, drawn and evaluated by ``unnoise-evaluate``, start-up
  and all, beside the bare calls of the network that they take: seconds, and the ratio.
- a page of many runs of 10,000 logged rows each, beside reading their bytes and parsing them;
- the summary of a sweep of as many finished jobs.

    python tests/benchmarks/evaluation_speed.py [--n 1000] [--runs 50] [--rows 10000] [--out …]
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import torch

from unnoise.config.sweep import Job
from unnoise.models.trained import TrainedModel
from unnoise.report.page import write
from unnoise.report.sweep import row, table

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
METRICS = ("loss", "gradient_norm", "learning_rate", "images_per_second", "a", "b", "c", "d")


def trained(folder: Path) -> Path:
    """A run of 50 steps."""
    command = [BIN / "unnoise-train", "experiment=sprites", "logger=none", "max_steps=50"]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    (run,) = (folder / "outputs" / "sprites").iterdir()
    return run


def evaluated(run: Path, n: int) -> tuple[float, float]:
    """Seconds of the command, and of the calls of the network alone."""
    command = [BIN / "unnoise-evaluate", f"run={run}", f"n={n}", "sampler=dpm_solver"]
    command += ["sampler.steps=20", "precision=fp32", "device=cpu"]
    begun = perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    whole = perf_counter() - begun
    network, batch = TrainedModel.load(run, device="cpu").model.network, 100
    x, t = torch.randn(batch, *network.shape), torch.rand(batch)
    with torch.inference_mode():
        network(x, t)
        begun = perf_counter()
        for _ in range(5):
            network(x, t)
    return whole, (perf_counter() - begun) / 5 * 20 * n / batch


def made_up(run: Path, folder: Path, count: int, rows: int) -> list[Path]:
    """Finished runs like one that is there, of other seeds, with longer logs."""
    config, manifest = (
        (run / "config.yaml").read_text(),
        json.loads((run / "manifest.json").read_text()),
    )
    lines = []
    for k in range(1, rows + 1):
        values = {f"train/{m}": math.exp(-k / rows) / (3 + j) for j, m in enumerate(METRICS)}
        values |= {"validation/loss": math.exp(-k / rows)} if k % 100 == 0 else {}
        lines.append(json.dumps({"step": k, "time": 1.7e9 + k / 3, **values}) + "\n")
    folders = [folder / f"{k:06d}" for k in range(count)]
    for seed, each in enumerate(folders):
        (each / "samples").mkdir(parents=True)
        (each / "config.yaml").write_text(config.replace("\nseed: 0", f"\nseed: {seed}"))
        told = manifest | {"overrides": [f"seed={seed}"], "steps": rows}
        (each / "manifest.json").write_text(json.dumps(told))
        (each / "metrics.jsonl").write_text("".join(lines))
        for grid in (run / "samples").glob("step_*.png"):
            os.link(grid, each / "samples" / grid.name)
    return folders


def reported(folders: list[Path], page: Path) -> tuple[float, float]:
    """Seconds of the page, and of parsing the logs line by line alone."""
    begun = perf_counter()
    write(page, folders)
    whole = perf_counter() - begun
    begun = perf_counter()
    for folder in folders:
        for line in (folder / "metrics.jsonl").read_text().splitlines():
            json.loads(line)
    return whole, perf_counter() - begun


def summarised(folders: list[Path]) -> float:
    """Seconds of a sweep's summary."""
    begun = perf_counter()
    config = {"metric": "validation/loss", "max_steps": 100}
    rows = [row(Job((f"seed={k}",), config, each)) for k, each in enumerate(folders)]
    assert f"{len(folders)} finished" in table(rows, "validation/loss")
    return perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "outputs/bench/evaluation_speed.json")
    parser.add_argument("--n", type=int, default=1000, help="pictures")
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--rows", type=int, default=10_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = trained(folder)
        seconds, bare = evaluated(run, arguments.n)
        folders = made_up(run, folder / "many", arguments.runs, arguments.rows)
        page = folder / "report.html"
        report, parsing = reported(folders, page)
        summary = summarised(folders)
        megabytes = page.stat().st_size / 1e6
    result = {
        "pictures": arguments.n,
        "evaluate_s": seconds,
        "network_s": bare,
        "evaluate_ratio": seconds / bare,
        "runs": arguments.runs,
        "rows": arguments.rows,
        "report_s": report,
        "parsing_s": parsing,
        "report_ratio": report / parsing,
        "report_mb": megabytes,
        "summary_s": summary,
    }
    runs = f"{arguments.runs} runs of {arguments.rows} rows"
    print(f"{arguments.n} pictures in 20 steps, drawn and evaluated: {seconds:.1f} s, "
          f"{seconds / bare:.2f} times the bare calls of the network ({bare:.1f} s)")  # fmt: skip
    print(f"page of {runs}: {report:.1f} s, {megabytes:.1f} MB, {report / parsing:.2f} times "
          f"parsing their logs line by line ({parsing:.1f} s)")  # fmt: skip
    print(f"summary of {arguments.runs} finished jobs: {summary:.2f} s")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
