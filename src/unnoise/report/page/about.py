"""What a run is: its state, its newest numbers, and all that they depend on."""

from collections.abc import Sequence
from typing import Any

from unnoise.report.page.comparison import at
from unnoise.report.page.table import duration, number
from unnoise.report.reader import Run
from unnoise.runs.identity import leaves
from unnoise.runs.layout import RunDirectory

HEADS = {
    "validation/loss": "validation loss",
    "train/loss": "loss",
    "validation/bits_per_dim": "bits/dim",
}
"""Headings of the metrics that say how good a run is, besides those of its quality."""
STATES = {"pruned": "pruned by a search", "unfinished": "not finished", "unknown": "state unknown"}
"""States of a run whose text is not their name."""


def state_text(run: Run) -> str:
    """The state of a run and, unless it is finished, the step."""
    text = STATES.get(run.state, run.state)
    if run.state in ("finished", "unknown") or not run.steps:
        return text
    return f"{text} at step {steps(run)}"


def steps(run: Run) -> str:
    """The last step and, where it is known, the number of steps."""
    return f"{run.step:,}" + (f" of {run.steps:,}" if run.steps else "")


def when(run: Run) -> str:
    """Day and time of the start."""
    moment = run.started
    return f"{moment.day} {moment:%B %Y, %H:%M}" if moment else "–"


def summary(run: Run) -> str:
    """The line below the title."""
    device, parameters = run.manifest.get("device"), run.manifest.get("parameters")
    parts = [
        when(run),
        duration(run.seconds),
        f"on {device}" if device else "–",
        f"{number(parameters)} parameters" if parameters else "–",
    ]
    return " · ".join(each for each in parts if each != "–")


def quality_metrics(runs: Sequence[Run]) -> list[str]:
    """The logged metrics that say how good a run is."""
    logged = {name for run in runs for name in run.curves}
    measured = sorted(name for name in logged if name.startswith("quality/"))
    return [*filter(logged.__contains__, HEADS), *(n for n in measured if n != "quality/seconds")]


def head(metric: str) -> str:
    """The heading of a metric."""
    return HEADS.get(metric, metric.removeprefix("quality/"))


def headlines(run: Run) -> dict[str, str]:
    """The most important numbers, by their names."""
    values = {head(metric): run.last(metric) for metric in quality_metrics([run])}
    if run.speed is not None:
        values["images a second"] = run.speed
    return {name: number(value) for name, value in values.items()} | {"steps": steps(run)}


def about(run: Run) -> dict[str, Any]:
    """What the numbers of a run depend on, as "facts", and the "checkpoints": [(file, MiB)]."""
    manifest, files = run.manifest, RunDirectory(run.folder)
    peak = manifest.get("peak_memory_mb")
    commit, *changed = str(manifest.get("git_commit") or "").split("-")
    experiments = [o.partition("=")[2] for o in run.overrides if o.startswith("experiment=")]
    versions = leaves(manifest.get("versions") or {})
    facts = {
        "experiment": ", ".join(experiments),
        "command": " ".join(["unnoise-train", *run.overrides]),
        "started": when(run),
        "took": duration(run.seconds),
        "failed": manifest.get("failed"),
        "resumed": ", ".join(
            f"at step {number(at(each, 'step'))}" for each in manifest.get("resumed", [])
        ),
        "device": manifest.get("device"),
        "devices": manifest.get("world_size"),
        "host": manifest.get("host"),
        "memory at most": f"{number(peak)} MB" if peak else None,
        "precision": manifest.get("precision"),
        "parameters": manifest.get("parameters"),
        "of the discriminator": manifest.get("discriminator_parameters"),
        "seed": run.config.get("seed", manifest.get("seed")),
        "git commit": "-".join([commit[:12], *changed]),
        "versions": ", ".join(f"{name} {version}" for name, version in versions),
        "training images": at(manifest, "data.train_images"),
        "data": str(at(manifest, "data.fingerprint") or "")[:12],
    }
    return {
        "facts": {name: value for name, value in facts.items() if value not in (None, "–", "")},
        "checkpoints": [(path, path.stat().st_size / 2**20) for path in files.saved()],
    }
