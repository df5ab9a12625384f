"""The report page: one HTML file that holds all it shows, of one run or of many."""

import base64
import hashlib
import os
import time
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from unnoise.files import write_text
from unnoise.report.page.about import about, headlines, state_text, summary
from unnoise.report.page.charts import curves
from unnoise.report.page.comparison import config_rows, labels, typed
from unnoise.report.page.evaluations import evaluations
from unnoise.report.page.leaderboard import leaderboard
from unnoise.report.page.samples import samples, side_by_side
from unnoise.report.page.table import breakable, number
from unnoise.report.reader import Run, read_runs
from unnoise.runs.identity import leaves

SCRIPTS = ("chart.js", "figures.js", "page.js")
LIVE = ("live.js",)  # of a page that is served


def write(path: Path, folders: Sequence[Path]) -> list[Run]:
    """Write the page of the runs in ``folders``; returns the runs as they were read."""
    runs = read_runs(folders)
    text = page(path, runs)
    write_text(path, text)
    return runs


def page(path: Path, runs: Sequence[Run], state: str = "") -> str:
    """The HTML of the page, with links relative to ``path``.

    A page that is served has a ``state``, and loads itself anew once its address has another.
    """
    names = labels(runs)
    script = "".join(_asset(name) for name in SCRIPTS + LIVE * bool(state))
    content: dict[str, Any] = {
        "evaluation": evaluations(runs, names),
        "curves": curves(runs, names),
        "style": Markup(_asset("page.css")),
        "script": Markup(script),
        "digest": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "live": state,
        "written": time.strftime("%Y-%m-%d %H:%M"),
    }
    if len(runs) == 1:
        template, (run,) = "run.html", runs
        content |= {
            "title": run.name,
            "run": run,
            "state": state_text(run),
            "summary": summary(run),
            "headlines": headlines(run),
            "samples": samples(run),
            "about": about(run),
            "config": [(key, typed(value)) for key, value in leaves(run.config)],
        }
    else:
        template = "comparison.html"
        same_name = len({run.name for run in runs}) == 1
        content |= {
            "title": f"{len(runs)} runs" + (f" of {runs[0].name}" if same_name else ""),
            "folder": path.absolute().parent,
            "names": names,
            "leaderboard": leaderboard(runs, names, path),
            "samples": side_by_side(runs, names),
            "config": config_rows(runs),
        }
    content["problems"] = [  # after all pictures were read
        f"{name}: {problem}" if len(runs) > 1 else problem
        for run, name in zip(runs, names, strict=True)
        for problem in run.problems
    ]
    return templates(path).get_template(template).render(content)


def templates(page: Path) -> Environment:
    """The templates, with links relative to ``page``."""
    templates = Environment(
        loader=PackageLoader("unnoise.report.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "ensure_ascii": False}
    folder = page.absolute().parent  # links stay valid when page and files are moved together
    link = lambda file: quote(os.path.relpath(file.absolute(), folder))  # noqa: E731
    templates.filters |= {"number": number, "breakable": breakable, "href": link}
    return templates


def _asset(name: str) -> str:
    return (files(__name__) / "assets" / name).read_text(encoding="utf-8")
