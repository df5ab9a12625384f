"""The page: one file that holds all it shows."""

import base64
import hashlib
import time
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from string import Template

from unnoise.files import write_durably
from unnoise.report.charts import chart, curve_data
from unnoise.report.comparison import labels
from unnoise.report.evaluations import evaluations
from unnoise.report.html import Html, element, joined, section
from unnoise.report.leaderboard import config_differences, leaderboard, sweep
from unnoise.report.overview import about, config, headlines, problems, summary
from unnoise.report.runs import Run, read_run
from unnoise.report.samples import samples, side_by_side

SCRIPTS = ("chart.js", "figures.js", "page.js")


def write(path: Path, folders: Sequence[Path]) -> list[Run]:
    """Write the page of the runs in some folders; gives what was read of them."""
    runs = [read_run(folder) for folder in folders]
    text = page(path, runs)
    write_durably(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return runs


def page(path: Path, runs: Sequence[Run]) -> str:
    """The page's text, with links as they hold from ``path``."""
    names = labels(runs)
    one = runs[0] if len(runs) == 1 else None
    if one is not None:
        title, head = one.name, joined([summary(one), headlines(one)])
        parts = [
            *samples(one, path),
            *_curves(runs, names),
            *evaluations(runs, names),
            *about(one, path),
            *config(one),
        ]
    else:
        shared = {run.name for run in runs}
        title = f"{len(runs)} runs" + (f" of {runs[0].name}" if len(shared) == 1 else "")
        head = element("p", {"class": "summary"}, f"below {path.absolute().parent}")
        parts = [
            *leaderboard(runs, names, path),
            *evaluations(runs, names),
            *_curves(runs, names),
            *side_by_side(runs, names, path),
            *sweep(runs, names),
            *config_differences(runs, names),
        ]
    script = "".join(_asset(name) for name in SCRIPTS)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return Template(_asset("page.html")).substitute(
        title=joined([title]),
        style=_asset("page.css"),
        head=head,
        problems=problems(runs, names),
        parts=joined(parts),
        written=time.strftime("%Y-%m-%d %H:%M"),
        digest=digest,
        script=script,
    )


def _curves(runs: Sequence[Run], names: Sequence[str]) -> list[Html]:
    if not any(run.curves for run in runs):
        return []
    data = curve_data(runs, names)
    return [section("Curves", "curves", chart("curves" if len(runs) == 1 else "overlay", data))]


def _asset(name: str) -> str:
    return (files("unnoise.report") / name).read_text(encoding="utf-8")
