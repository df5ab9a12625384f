"""For notebooks and scripts: load a trained model and draw from it.

>>> model = unnoise.load("outputs/sprites/2026-01-31_12-00-00_1a2b3c4d")
>>> model.sample(16, steps=50).grid()
"""

import dataclasses
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from unnoise.cli.config import instantiate
from unnoise.diffusion.denoiser import Denoiser
from unnoise.diffusion.noise_level import NoiseLevel
from unnoise.diffusion.random import Noise
from unnoise.diffusion.samplers import Sampler
from unnoise.model import DiffusionModel
from unnoise.pictures import grid, to_pixels


class Pictures:
    """N drawn pictures; ``x`` is float32 (N, C, H, W) in about [−1, 1]."""

    def __init__(self, x: Tensor) -> None:
        self.x = x

    def __len__(self) -> int:
        return len(self.x)

    @property
    def pixels(self) -> Tensor:
        """uint8 (N, C, H, W)."""
        return to_pixels(self.x)

    def nhwc(self) -> np.ndarray:
        """uint8 (N, H, W, 3), grey repeated: what FID tools read."""
        pixels = self.pixels.expand(-1, 3, -1, -1)
        return pixels.permute(0, 2, 3, 1).contiguous().numpy()

    def images(self) -> list[Image.Image]:
        """Each as a PIL image, grey or RGB."""
        arrays = self.pixels.permute(0, 2, 3, 1).numpy()
        return [Image.fromarray(a[..., 0] if a.shape[-1] == 1 else a) for a in arrays]

    def grid(self, columns: int | None = None) -> Image.Image:
        """All of them on one sheet."""
        return grid(self.pixels, columns)


class TrainedModel:
    """A model from a checkpoint, with the run's own sampler and config."""

    def __init__(
        self, model: DiffusionModel, sampler: Sampler, config: dict[str, Any], checkpoint: Path
    ) -> None:
        self.model, self.sampler, self.config = model, sampler, config
        self.checkpoint = checkpoint

    def sample(
        self,
        n: int,
        *,
        sampler: Sampler | None = None,
        steps: int | None = None,
        seed: int = 0,
        first: int = 0,
        labels: Sequence[int] | None = None,
        batch_size: int = 64,
        progress: bool = False,
    ) -> Pictures:
        """Draw pictures number first … first + n − 1 of ``seed``.

        A picture is a function of seed and number: the same whatever ``n`` and ``batch_size`` are.

        Args:
            n: how many.
            sampler: default: the run's.
            steps: instead of the sampler's own.
            seed: of all noise.
            first: number of the first picture.
            labels: classes to ask for, taken in turn by number; default: all, in turn.
            batch_size: pictures drawn at a time.
            progress: show a bar.

        Raises:
            ValueError: labels for an unconditional model, or not classes of it; too many steps.
        """
        sampler = sampler or self.sampler
        if steps is not None:
            sampler = dataclasses.replace(sampler, steps=steps)
        steps = len(self.model.schedule.grid(sampler.steps, sampler.spacing)) - 1
        drawn = []
        with tqdm(
            total=n * steps,
            disable=not progress,
            leave=False,
            bar_format="drawing {percentage:3.0f}% {bar} [{elapsed}<{remaining}]",
        ) as bar:

            def watch(x: Tensor, level: NoiseLevel) -> None:
                bar.update(len(x))

            for start in range(first, first + n, batch_size):
                ids = torch.arange(start, min(start + batch_size, first + n))
                ids = ids.to(self.model.device)
                batch = None if labels is None else self._asked(labels, ids)
                drawn.append(self.model.sample(sampler, Noise(seed, ids), batch, watch).cpu())
        return Pictures(torch.cat(drawn))

    def _asked(self, labels: Sequence[int], ids: Tensor) -> dict[str, Tensor]:
        if self.model.conditioner is None:
            raise ValueError("labels are given, but the model is unconditional")
        classes = self.config["conditioning"]["classes"]
        if not labels or not all(0 <= label < classes for label in labels):
            raise ValueError(f"labels {list(labels)} are not classes 0 … {classes - 1}")
        return {"label": torch.tensor(labels, device=ids.device)[ids % len(labels)]}


def load(run: str | Path, *, averaged: bool = True, device: str = "auto") -> TrainedModel:
    """The model of a run directory (its newest checkpoint) or of a checkpoint file.

    Loading executes nothing that the file brings: tensors and plain containers are read, and the
    model is built from the config behind the allow-list of targets.

    Args:
        run: directory or file.
        averaged: the exponential moving average of the weights rather than the last ones.
        device: "auto" takes a GPU where there is one.

    Raises:
        FileNotFoundError: there is no checkpoint.
        ValueError: the file is no checkpoint of unnoise.
    """
    path = find_checkpoint(Path(run))
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        config, state = content["config"], content["state_dict"]
    except (RuntimeError, pickle.UnpicklingError, KeyError, EOFError, TypeError) as error:
        raise ValueError(f"{path} is not a whole checkpoint of unnoise: {error}") from error
    denoiser = Denoiser(
        instantiate(config["network"]),
        instantiate(config["prediction"]),
        config["learned_variance"],
    )
    size = config["data"]["image_size"]
    model = DiffusionModel(
        denoiser,
        instantiate(config["schedule"]),
        (config["data"]["channels"], size, size),
        instantiate(config["conditioning"]),
    )
    prefix = "ema.model." if averaged else "model."
    model.load_state_dict(
        {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    )
    model.eval().requires_grad_(False).to(_device(device))
    return TrainedModel(model, instantiate(config["sampler"]), config, path)


def find_checkpoint(run: Path) -> Path:
    """``run`` itself if it is a file, else the newest checkpoint of the run directory.

    Raises:
        FileNotFoundError: there is none.
    """
    if run.is_file():
        return run
    if not run.is_dir():
        raise FileNotFoundError(f"there is no run or checkpoint {run}")
    found = sorted((run / "checkpoints").glob("step_*.ckpt"))
    if not found:
        raise FileNotFoundError(f"the run {run} has no checkpoint yet (in {run / 'checkpoints'})")
    return found[-1]


def _device(name: str) -> torch.device:
    if name != "auto":
        return torch.device(name)
    accelerator = (
        torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    )
    return accelerator or torch.device("cpu")
