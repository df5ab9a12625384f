"""What a press of the button asks for, as a request of ``unnoise-sample``."""

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from unnoise.api import Model, Pictures
from unnoise.cli.request import check_request
from unnoise.cli.sample import Drawing
from unnoise.config.compose import CONF, check_command_line
from unnoise.config.nodes import instantiate
from unnoise.config.problems import ConfigError, errors_in
from unnoise.config.typed import in_shell
from unnoise.data.decoding import Decoder
from unnoise.demo.drawing import Job
from unnoise.diffusion.samplers import Watch, steps_taken
from unnoise.runs.layout import RunDirectory, shown


@cache
def _defaults(*options: str) -> dict[str, Any]:
    """The keys of ``unnoise-sample``, as some options set them."""
    config, _ = check_command_line("sample", ["run=_", *options])
    assert config is not None
    return config


@cache
def samplers() -> dict[str, Any]:
    """The options of the group, built."""
    names = sorted(path.stem for path in (CONF / "sampler").glob("*.yaml"))
    return {name: instantiate(_defaults(f"sampler={name}")["sampler"]) for name in names}


def prepare(model: Model, keys: Mapping[str, Any]) -> Job:
    """A request of ``unnoise-sample``: checked and answered as that command does."""
    given = {key: value for key, value in keys.items() if value is not None}
    options = [f"sampler={given.pop('sampler')}"] if "sampler" in given else []
    config = _defaults(*options) | given | {"run": str(model.checkpoint), "out": "."}
    if wrong := errors_in(check_request(Drawing, config)):
        raise ConfigError("\n".join(map(str, wrong)))
    request = Drawing(**{key: instantiate(value) for key, value in config.items()})
    decoder = Decoder.of(model.model.shape, model.config["data"])
    edit, _ = request.make_edit(request.n, model.model.codec, decoder)
    recipe = request.sampler or model.sampler
    recipe = model.model.changed(recipe, request.steps, request.guidance)
    steps = steps_taken(model.model.steps(recipe), 1 if edit is None else edit.strength)

    def draw(watch: Watch) -> Pictures:
        pictures = request.drawn(model, edit, decoder, watch)
        assert pictures is not None
        return pictures

    return Job(model.model.caption(recipe), steps, _command(model, options, given), draw)


def _command(model: Model, options: list[str], given: Mapping[str, Any]) -> str | None:
    """What to type for the same; None where pictures are given."""
    if given.keys() & {"image", "images"}:
        return None
    run = RunDirectory.of(model.checkpoint).path
    typed = [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in given.items()]
    return " ".join(
        ["unnoise-sample", *map(in_shell, [f"run={shown(run.resolve())}", *options, *typed])]
    )
