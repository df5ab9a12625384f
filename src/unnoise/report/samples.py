"""The parts of a page that show pictures."""

from collections.abc import Callable, Sequence
from pathlib import Path

from unnoise.report.comparison import at
from unnoise.report.html import Html, element, note, section
from unnoise.report.overview import link
from unnoise.report.pictures import animation, still
from unnoise.report.runs import Run

BUDGET = 4_000_000
"""Bytes of all sample grids of a page of many runs."""
STEPS = 12
"""Grids of a run, at most, that a page of it shows."""


def samples(run: Run, page: Path) -> list[Html]:
    """What one run drew while it was trained."""
    steps = _spread(sorted(run.grids), STEPS)
    parts = [_strip(run, page, steps, 250_000)] if steps else []
    pictures: list[tuple[str, str, Callable[[Path], str]]] = [
        ("denoising.gif", "Denoising, from noise to pictures", animation),
        ("forward_process.png", "The forward process, from data to noise", still),
    ]
    for name, caption, read in pictures:
        path = run.folder / "samples" / name
        if path.exists():
            parts.append(_figure(run, page, path, caption, read))
    if not parts:
        return []
    return [section("Samples", "samples", _slider(steps), element("div", {"class": "row"}, *parts))]


def side_by_side(runs: Sequence[Run], labels: Sequence[str], page: Path) -> list[Html]:
    """The grids of many runs, and whether they began from the same noise."""
    shown = [(run, label) for run, label in zip(runs, labels, strict=True) if run.grids]
    if not shown:
        return []
    each = max(1, min(4, 48 // len(shown)))
    steps = [_spread(sorted(run.grids), each) for run, _ in shown]
    cards = [
        element(
            "div",
            {"class": "card"},
            element("h3", {}, label),
            _strip(run, page, chosen, BUDGET // (each * len(shown))),
        )
        for (run, label), chosen in zip(shown, steps, strict=True)
    ]
    told = note(noise([run for run, _ in shown]))
    union = sorted({step for chosen in steps for step in chosen})
    row = element("div", {"class": "cards"}, *cards)
    return [section("Samples side by side", "samples", told, _slider(union), row)]


def noise(runs: Sequence[Run]) -> str:
    """Whether the same picture of each grid began from the same noise."""
    seeds = {str(run.config.get("seed")) for run in runs}
    shape = ("data.image_size", "data.channels")
    sizes = {str([at(run.config, key) for key in shape]) for run in runs}
    if len(seeds) > 1:
        return (
            f"The seeds differ ({', '.join(sorted(seeds))}): grids of different seeds began from "
            "different noise."
        )
    if len(sizes) > 1:
        return "The pictures differ in size, so the grids began from different noise."
    return f"Picture by picture, the grids began from the same noise (seed {next(iter(seeds))})."


def _spread(steps: Sequence[int], most: int) -> list[int]:
    """At most ``most`` of the steps, evenly, the last always."""
    if len(steps) <= most:
        return list(steps)
    if most == 1:
        return [steps[-1]]
    return [steps[round(k * (len(steps) - 1) / (most - 1))] for k in range(most)]


def _strip(run: Run, page: Path, steps: Sequence[int], large: int) -> Html:
    """The grids of some steps, of which the script shows the one that the slider asks for."""
    figures = [
        _figure(
            run, page, run.grids[step], f"step {step:,}", lambda path: still(path, large), str(step)
        )
        for step in steps
    ]
    return element("div", {"class": "strip"}, *figures)


def _slider(steps: Sequence[int]) -> Html:
    """Of the steps of the section's strips, which the script shows where there are several."""
    if len(steps) < 2:
        return Html()
    last = str(len(steps) - 1)
    shown = {"type": "range", "min": "0", "max": last, "value": last, "aria-label": "step"}
    inside = "Step ", element("output", {}, f"{steps[-1]:,}"), element("input", shown)
    told = {"class": "slider", "data-steps": " ".join(map(str, steps)), "hidden": ""}
    return element("label", told, *inside)


def _figure(
    run: Run,
    page: Path,
    path: Path,
    caption: str,
    read: Callable[[Path], str],
    step: str | None = None,
) -> Html:
    """A picture, which leads to its file; nothing if it cannot be read, which is a problem."""
    try:
        source = read(path)
    except (OSError, ValueError, SyntaxError) as error:  # what Pillow raises of damaged files
        run.problems.append(f"{path.relative_to(run.folder)} is unreadable: {error}")
        return Html()
    picture = element("img", {"src": source, "alt": f"{run.name}: {caption}"})
    shown = link(path, page, picture), element("figcaption", {}, caption)
    return element("figure", {"data-step": step}, *shown)
