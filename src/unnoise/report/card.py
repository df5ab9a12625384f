"""The card of a model that is handed on: what it is, how good it is, how to draw with it."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import yaml  # type: ignore[import-untyped]

from unnoise.evaluation.results import Estimate, Score
from unnoise.models.trained import TrainedModel
from unnoise.report.reader import Run, read_run
from unnoise.runs.layout import RunDirectory, step_of

SAMPLES = "samples.png"


def card(trained: TrainedModel, recipe: Any, tags: dict[str, Any], use: str, proof: str) -> str:
    """In Markdown, with the front matter of the Hugging Face hub, of which ``tags`` are a part.

    ``use`` is code that draws as the run does with ``recipe``; ``proof`` says how it was checked.
    """
    run = read_run(RunDirectory.of(trained.checkpoint).path)
    head = yaml.safe_dump({"tags": ["unnoise"], **tags}, sort_keys=False).strip()
    parts = [
        f"---\n{head}\n---",
        f"# {_plain(trained.config.get('name', 'model'))}",
        f"![Samples]({SAMPLES})",
        f"Pictures 0 … of seed 0, as drawn by the run: {trained.model.caption(recipe)}.",
        f"## Draw\n\n```python\n{use.strip()}\n```\n\n{proof}",
        f"## What was trained\n\n{_table(('', ''), _facts(trained, run))}",
        f"## What was measured\n\n{_measured(run)}",
    ]
    return "\n\n".join(parts) + "\n"


def _facts(trained: TrainedModel, run: Run) -> Iterable[tuple[str, str]]:
    model, config, facts = trained.model, trained.config, trained.facts
    yield "model", f"{type(model).__name__} of pictures {' × '.join(map(str, model.shape))}"
    yield "parameters", f"{sum(p.numel() for p in model.network.parameters()):,}"
    for key in ("prediction", "schedule", "objective", "autoencoder", "conditioning"):
        if isinstance(node := config.get(key), dict):
            values = (f"{k}={v}" for k, v in node.items() if isinstance(v, int | float | str))
            said = ", ".join(each for each in values if not each.startswith(("_", "run=")))
            yield key, f"{str(node['_target_']).rpartition('.')[2]} {said}"[:200]
    data = config.get("data") or {}
    yield "data", str(data.get("_target_", "unknown")).rpartition(".")[2]
    for key, name in (("train_images", "pictures"), ("fingerprint", "fingerprint of the data")):
        if key in facts:
            yield name, f"{facts[key]:,}" if isinstance(facts[key], int) else str(facts[key])
    if facts.get("classes"):
        yield "classes", ", ".join(map(str, facts["classes"]))[:400]
    if trained.checkpoint.stem.startswith("step_"):
        yield "optimizer steps", f"{step_of(trained.checkpoint):,}"
    for key in ("batch_size", "seed", "ema_decay", "precision"):
        if key in config:
            yield key, str(config[key])
    versions = run.manifest.get("versions")
    if isinstance(versions, dict):
        yield "trained with", ", ".join(f"{name} {each}" for name, each in versions.items())
    if commit := run.manifest.get("git_commit"):
        yield "commit of unnoise", str(commit)
    if run.overrides:
        yield "typed", " ".join(run.overrides)


def _measured(run: Run) -> str:
    """Scores with their standard errors, a table for each group that may be compared."""
    drawn = [score for score in run.scores if not score.samples.is_control]
    parts = [_scores(group) for group in _groups(drawn)]
    for table in run.tables:
        keys = dict.fromkeys(key for row in table.rows for key in row)
        rows = [tuple(_number(row.get(key, "")) for key in keys) for row in table.rows]
        parts.append(f"{table.measure}\n\n{_table(tuple(keys), rows)}")
    return "\n\n".join(parts) or "Nothing yet."


def _groups(scores: Sequence[Score]) -> Iterable[list[Score]]:
    found: dict[Any, list[Score]] = {}
    for score in scores:
        found.setdefault(score.fingerprint, []).append(score)
    return found.values()


def _scores(scores: Sequence[Score]) -> str:
    about = scores[0].fingerprint
    names = list(dict.fromkeys(name for score in scores for name in score.metrics))
    rows = [
        (score.name, _number(score.samples.step), *(str(score.metrics.get(n, "")) for n in names))
        for score in scores
    ]
    said = f"{about.count:,} pictures against {about.reference}, features by {about.extractor}"
    return f"{_plain(said)}; ± is a standard error\n\n{_table(('', 'step', *names), rows)}"


def _number(value: Any) -> str:
    if isinstance(value, dict) and set(value) == {"value", "error"}:
        return str(Estimate(**value))
    if isinstance(value, float):
        return f"{value:.4g}" if math.isfinite(value) else str(value)
    return "" if value is None else str(value)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(_plain, line))} |" for line in lines)


def _plain(text: object) -> str:
    """In one cell of a table."""
    return " ".join(str(text).replace("|", "¦").replace("<", "‹").split())
