"""The parts of a page that tell what a run is."""

import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from unnoise.report.comparison import at, leaves, shown
from unnoise.report.html import Html, details, duration, element, facts, joined, number, section
from unnoise.report.runs import Run, started

STATES = {
    "finished": "finished",
    "failed": "failed",
    "pruned": "pruned by a search",
    "running": "running",
    "interrupted": "interrupted",
    "unfinished": "not finished",
    "unknown": "state unknown",
}
HEADLINES = {
    "train/loss": "loss",
    "validation/loss": "validation loss",
    "validation/bits_per_dim": "bits/dim",
}
"""Metrics whose last value stands at the top, besides quality and speed."""
MEBIBYTE = 1 << 20


def state(run: Run) -> Html:
    """A word for it, in a frame."""
    told = STATES[run.state]
    if run.state in ("failed", "pruned", "running", "interrupted", "unfinished") and run.steps:
        told += f" at step {run.step:,} of {run.steps:,}"
    return element("span", {"class": f"state {run.state}"}, told)


def when(run: Run) -> str:
    """Day and time of its start."""
    moment = started(run)
    return f"{moment.day} {moment:%B %Y, %H:%M}" if moment else "–"


def summary(run: Run) -> Html:
    """What stands below the name."""
    device = run.manifest.get("device")
    parameters = run.manifest.get("parameters")
    told = [
        when(run),
        duration(run.seconds),
        f"on {device}" if device else "–",
        f"{number(parameters)} parameters" if parameters else "–",
    ]
    line = " · ".join(each for each in told if each != "–")
    why = run.manifest.get("failed")
    reason = element("p", {"class": "summary"}, str(why)) if why else Html()
    return joined([element("p", {"class": "summary"}, state(run), f" {line}"), reason])


def headlines(run: Run) -> Html:
    """The numbers that matter, large."""
    told = [
        (head, number(run.last(name))) for name, head in HEADLINES.items() if name in run.curves
    ]
    told += [
        (name.removeprefix("quality/"), number(run.last(name)))
        for name in run.curves
        if name.startswith("quality/") and name != "quality/seconds"
    ]
    if run.speed is not None:
        told.append(("images a second", number(run.speed)))
    told.append(("steps", f"{run.step:,}" + (f" of {run.steps:,}" if run.steps else "")))
    tiles = [
        element("div", {}, element("dt", {}, head), element("dd", {}, value))
        for head, value in told
    ]
    return element("dl", {"class": "tiles"}, *tiles)


def about(run: Run, page: Path) -> list[Html]:
    """All that a run's numbers depend on, and where its files are."""
    manifest = run.manifest
    peak = manifest.get("peak_memory_mb")
    commit, *changed = str(manifest.get("git_commit") or "").split("-")
    choice = [each.partition("=")[2] for each in run.overrides if each.startswith("experiment=")]
    told = {
        "folder": link(run.folder, page, str(run.folder)),
        "experiment": ", ".join(choice) or None,
        "command": element("code", {}, " ".join(["unnoise-train", *run.overrides])),
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
        "seed": run.config.get("seed", manifest.get("seed")),
        "git commit": "-".join([commit[:12], *changed]),
        "versions": ", ".join(
            f"{k[9:]} {v}" for k, v in leaves(manifest.get("versions"), "versions")
        ),
        "training images": at(manifest, "data.train_images"),
        "data": str(at(manifest, "data.fingerprint") or "")[:12],
        "checkpoints": _checkpoints(run, page),
    }
    lines = {
        k: v if isinstance(v, Html) else number(v)
        for k, v in told.items()
        if v not in (None, "–", "")
    }
    return [section("About the run", "about", facts(lines))]


def link(path: Path, page: Path, text: str) -> Html:
    """A link to a file that goes on working when page and file are moved together."""
    relative = os.path.relpath(path.absolute(), page.absolute().parent)
    return element("a", {"href": quote(relative)}, text)


def _checkpoints(run: Run, page: Path) -> Html:
    told = [
        joined([link(p, page, p.name), f" {p.stat().st_size / MEBIBYTE:.1f} MiB"])
        for p in run.checkpoints
    ]
    return Html(", ".join(told))


def config(run: Run) -> list[Html]:
    """Every key of the config, with a field to look for one."""
    lines = [
        element("tr", {}, element("th", {"scope": "row"}, key), element("td", {}, shown(value)))
        for key, value in leaves(run.config)
    ]
    if not lines:
        return []
    find = {
        "type": "search",
        "placeholder": "Find a key or a value",
        "aria-label": "find",
        "hidden": "",
    }
    box = element("div", {"class": "scroll"}, element("table", {"class": "config"}, *lines))
    inside = details(f"{len(lines)} keys", element("input", find), box)
    return [section("Config", "config", inside)]


def problems(runs: Sequence[Run], labels: Sequence[str]) -> Html:
    """What could not be read, where there is something."""
    told = [
        element("li", {}, f"{label}: {problem}" if len(runs) > 1 else problem)
        for run, label in zip(runs, labels, strict=True)
        for problem in run.problems
    ]
    if not told:
        return Html()
    head = f"{len(told)} thing{'s' * (len(told) > 1)} could not be read"
    return element(
        "aside", {"class": "problems"}, element("h2", {}, head), element("ul", {}, *told)
    )
