"""A model in one folder to hand on: weights, config, and a picture by which it checks itself."""

import json
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml  # type: ignore[import-untyped]
from PIL import Image
from torch import Tensor

from unnoise.diffusion.samplers import Sampler
from unnoise.files import write_with_digest
from unnoise.models.build import named
from unnoise.models.trained import TrainedModel
from unnoise.runs import manifest
from unnoise.runs.checkpoints import LAYOUT
from unnoise.runs.layout import RunDirectory, step_of
from unnoise.untrusted import load_json, load_safetensors

MOST_STEPS = 20  # that the picture is drawn in, so that each load can check it
ELSEWHERE = "(not in this bundle)"
PRIVATE = ("host", "pid", "visible_devices", "overrides")
"""Keys of a manifest that are of one machine, or may name places of it."""
ROUNDING = 3  # levels of 255 that arithmetic may make
PICTURES = "pictures.safetensors"


def write(trained: TrainedModel, config: dict[str, Any], folder: Path) -> None:
    """Weights, config, manifest, picture 0 and the evaluations, each with its digest.

    ``config`` is that of the run, with the sampler that the bundle is to draw with.
    """
    from safetensors.torch import save_file

    model, files, home = trained.model, RunDirectory(folder), RunDirectory.of(trained.checkpoint)
    weights = {key: value.cpu().contiguous() for key, value in model.state_dict().items()}
    write_with_digest(files.weights, partial(save_file, weights))
    prompts = trained.prompts().batch(torch.zeros(1, dtype=torch.long))
    steps = None
    if isinstance(trained.sampler, Sampler):
        steps = min(model.steps(trained.sampler), MOST_STEPS)
    picture = {"steps": steps, "prompt": _plain(prompts), "drawn_on": here(trained)}
    given = {"prompt": prompts["image"].cpu().contiguous()} if "image" in prompts else {}
    drawn = _picture(trained, picture, given)
    write_with_digest(folder / PICTURES, partial(save_file, {"picture": drawn, **given}))
    shown = drawn[0].permute(1, 2, 0).numpy()
    png = Image.fromarray(shown[..., 0] if shown.shape[2] == 1 else shown)
    write_with_digest(folder / "picture_0.png", partial(png.save, format="PNG"))
    about = {
        "model": named(model),
        "layout": LAYOUT,
        "config": _public(config),
        "data": dict(trained.facts),
        "step": step_of(trained.checkpoint) if trained.checkpoint.stem[:5] == "step_" else None,
        "picture": picture,
    }
    known = manifest.read(home.path) if home.manifest.exists() else {"name": config.get("name")}
    record = {key: value for key, value in known.items() if key not in PRIVATE}
    text = yaml.safe_dump(_public(config), sort_keys=False, allow_unicode=True)
    _write(files.bundle, json.dumps(about, indent=2, ensure_ascii=False) + "\n")
    _write(files.manifest, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    _write(files.config, text)
    for path in sorted(home.evaluation.glob("*")):
        if path.suffix in (".json", ".csv", ".png"):
            copy = partial(shutil.copyfile, path)
            write_with_digest(files.evaluation / path.name, copy)


def _write(path: Path, text: str) -> None:
    write_with_digest(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _plain(batch: Mapping[str, Any]) -> dict[str, Any]:
    """What a picture was drawn from, but for pictures, in plain values."""
    found = {"label": batch["label"].tolist()} if "label" in batch else {}
    return found | ({"caption": list(batch["caption"])} if "caption" in batch else {})


def _public(config: dict[str, Any]) -> dict[str, Any]:
    """Without the places of one machine: where data and other runs were."""
    public: dict[str, Any] = json.loads(json.dumps(config))
    for key, place in (("data", "root"), ("autoencoder", "run"), ("initial", "run")):
        node = public.get(key)
        if isinstance(node, dict) and isinstance(node.get(place), str):
            node[place] = ELSEWHERE
    return public


def _picture(trained: TrainedModel, how: Mapping[str, Any], given: Mapping[str, Tensor]) -> Tensor:
    """Picture 0 of seed 0, uint8 (1, C, H, W)."""
    reads = trained.model.conditioner.reads if trained.model.conditioner else ()
    words = {"labels": how["prompt"].get("label"), "captions": how["prompt"].get("caption")}
    options = {key: value for key, value in words.items() if key[:-1] in reads}
    if "image" in reads:
        options["images"] = given["prompt"]
    return trained.draw(1, steps=how["steps"], **options).pixels


def difference(trained: TrainedModel) -> str | None:
    """What a bundle's picture 0 says of it, in a line; None if it is equal, or there is none.

    A few levels of grey are rounding, which differs between processors, devices and versions.
    """
    files = RunDirectory.of(trained.checkpoint)
    if trained.checkpoint != files.weights:
        return None
    how, (kept, _) = load_json(files.bundle)["picture"], load_safetensors(files.path / PICTURES)
    try:
        drawn = _picture(trained, how, kept)
    except (ValueError, FileNotFoundError, ImportError, KeyError) as error:
        return f"{files.path}: picture 0 cannot be drawn here, so nothing is known of it: {error}"
    if drawn.shape != kept["picture"].shape:
        return f"{files.path}: picture 0 has another shape than the one in the bundle"
    apart = (drawn.short() - kept["picture"].short()).abs()
    if not bool(apart.any()):
        return None
    share, most = float((apart > 0).float().mean()), int(apart.max())
    what = f"{files.path}: picture 0 differs from the bundle's in {share:.1%} of its numbers, by "
    what += f"{most} of 255 at most"
    machines = f"it was drawn on {how['drawn_on']}, this is {here(trained)}"
    if most <= ROUNDING:
        return f"{what}: rounding; {machines}"
    why = "where that is the same, the weights, the config or the code are not those of the bundle"
    return f"{what}, more than rounding of a few steps: {machines}; {why}"


def here(trained: TrainedModel) -> str:
    """What decides the last digits of a picture."""
    device = trained.model.device.type
    unit = torch.backends.cpu.get_cpu_capability() if device == "cpu" else device
    if device == "cuda":
        unit = torch.cuda.get_device_name()
    return f"{unit}, torch {torch.__version__.partition('+')[0]}, float32"
