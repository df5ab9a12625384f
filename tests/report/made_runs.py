"""Run directories with nothing but what a report reads."""

import json

import yaml
from PIL import Image

from unnoise.evaluation.results import Estimate, Fingerprint, Samples, Score

CONFIG = {
    "name": "tiny",
    "seed": 0,
    "max_steps": 100,
    "data": {"_target_": "unnoise.data.sprites.Sprites", "image_size": 16, "channels": 3},
    "schedule": {"_target_": "unnoise.diffusion.schedules.linear", "T": 1000},
    "objective": {"_target_": "unnoise.diffusion.objectives.SimpleLoss"},
    "optimizer": {"_target_": "torch.optim.Adam", "lr": 0.001},
}
MANIFEST = {
    "name": "tiny",
    "started": "2026-01-31T12:00:00+0000",
    "versions": {"python": "3.11.7", "torch": "2.6.0"},
    "git_commit": "1a2b3c4",
    "data": {"train_images": 20, "fingerprint": "f" * 64},
    "parameters": 1234,
    "device": "cpu",
    "resumed": [],
    "finished": "2026-01-31T12:01:00+0000",
    "seconds": 60.0,
}


def rows(count=5, loss=1.0):
    return [
        {"step": 20 * k, "time": 1000.0 + k, "train/loss": loss / k, "validation/loss": loss / k**2}
        for k in range(1, count + 1)
    ]


def make(folder, lines=None, overrides=(), manifest=None, choices=None, **config):
    """A run directory; ``config`` are other values of keys of its root."""
    for name in ("samples", "checkpoints", "evaluation"):
        (folder / name).mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG | config))
    told = {"overrides": list(overrides), "choices": choices or {}}
    told |= MANIFEST if manifest is None else manifest
    (folder / "manifest.json").write_text(json.dumps(told))
    lines = rows() if lines is None else lines
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    for step in (50, 100):
        Image.new("RGB", (40, 40), (step, 0, 0)).save(folder / "samples" / f"step_{step:08d}.png")
    (folder / "checkpoints" / "step_00000100.ckpt").write_bytes(b"weights")
    return folder


FINGERPRINT = Fingerprint(100, "train 1000 of abc", "sprites def", "none", "round")


def score(name, fd, evaluations, fingerprint=FINGERPRINT, kind="drawn", **more):
    cost = {} if kind != "drawn" else {"evaluations": evaluations, "seconds": evaluations / 100}
    metrics = {"fd_sprites": fd, **more}
    return Score(
        name,
        Samples(kind=kind, sampler=name, steps=evaluations, **cost),
        fingerprint,
        {key: Estimate(value, 0.1) for key, value in metrics.items()},
    )
