"""For notebooks and scripts: load a trained model and draw from it.

>>> model = unnoise.load("outputs/sprites/2026-01-31_12-00-00_1a2b3c4d")
>>> model.sample(16, steps=50).grid()
"""

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from unnoise.config.nodes import DATA, MODEL, instantiate
from unnoise.config.problems import ConfigError
from unnoise.data.pixels import to_pixels
from unnoise.diffusion.denoiser import Denoiser
from unnoise.diffusion.editing import Edit, Interpolate
from unnoise.diffusion.levels import NoiseLevel
from unnoise.diffusion.noise import Noise
from unnoise.diffusion.samplers import Sampler, steps_taken
from unnoise.distributed.devices import named_device
from unnoise.models.diffusion import Classifier, DiffusionModel
from unnoise.models.prompts import Prompts, words
from unnoise.report.sheets import beside, grid
from unnoise.runs.checkpoints import find_checkpoint, is_whole
from unnoise.untrusted import UnsafeFile, check_fit, load_tensors


class Pictures:
    """N drawn pictures; ``x`` is float32 (N, C, H, W) in about [−1, 1].

    ``captions`` (N strings) and ``asked`` (N, 1 or C, h, w) uint8 say and show what was asked for,
    where that can be said or shown.
    """

    def __init__(
        self, x: Tensor, captions: Sequence[str] | None = None, asked: Tensor | None = None
    ) -> None:
        self.x, self.captions, self.asked = x, captions, asked

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
        """All of them on one sheet, beside and above what was asked for."""
        pixels = self.pixels if self.asked is None else beside(self.asked, self.pixels)
        return grid(pixels, columns, captions=self.captions)


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
        guidance: float | None = None,
        seed: int = 0,
        first: int = 0,
        labels: Sequence[int] | None = None,
        captions: str | Sequence[str] | None = None,
        images: Tensor | None = None,
        edit: Edit | None = None,
        weak: "TrainedModel | None" = None,
        classifier: Classifier | None = None,
        batch_size: int = 64,
        progress: bool = False,
    ) -> Pictures:
        """Draw pictures number first … first + n − 1 of ``seed``.

        A picture is a function of seed and number: the same whatever ``n`` and ``batch_size`` are.

        Args:
            n: how many.
            sampler: default: the run's.
            steps: instead of the sampler's own.
            guidance: instead of the scale of the sampler's own.
            seed: of all noise.
            first: number of the first picture.
            labels: classes to ask for, taken in turn by number; default: all, in turn.
            captions: texts to ask for, in turn; default: those of the validation split.
            images: uint8 (N, C, H, W) to ask by, in turn; default: those of the validation split.
            edit: Inpaint, ImageToImage or Interpolate: draw from pictures.
            weak: a worse model of the same schedule, to guide away from (autoguidance).
            classifier: of noisy pictures, to guide by; then ``labels`` are its classes.
            batch_size: pictures drawn at a time.
            progress: show a bar.

        Raises:
            ValueError: what is asked for is not what the model is asked by, or not in its range;
                too many steps; guidance by nothing, or by a null condition that was not trained; a
                sampler or pictures unfit for the edit.
        """
        sampler = sampler or self.sampler
        if steps is not None:
            sampler = dataclasses.replace(sampler, steps=steps)
        if guidance is not None:
            scaled = dataclasses.replace(sampler.guidance, scale=guidance)
            sampler = dataclasses.replace(sampler, guidance=scaled)
        if weak is None and classifier is None:
            self.check_guidance(sampler.guidance.scale)
        prompts = Prompts(
            self.model,
            {
                "label": labels,
                "caption": [captions] if isinstance(captions, str) else captions,
                "image": images,
            },
            self.config["data"].get("classes"),
            classifier,
            lambda: self.validation,
        )
        if isinstance(edit, Interpolate):
            prompts.check_same()
        elif edit is not None:
            prompts.check_told()
        conditioner = self.model.conditioner
        labelled = conditioner is not None and "label" in conditioner.reads
        names = self.class_names if labelled else ()
        levels = self.model.schedule.grid(sampler.steps, sampler.spacing)
        steps = steps_taken(len(levels) - 1, 1 if edit is None else edit.strength)
        drawn: list[Tensor] = []
        told: list[str] = []
        shown: list[Tensor] = []
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
                batch = prompts.batch(ids)
                x = self.model.sample(
                    sampler,
                    Noise(seed, ids),
                    batch,
                    watch,
                    edit=edit,
                    weak=None if weak is None else weak.model,
                    classifier=classifier,
                )
                drawn.append(x.cpu())
                told += words(self.model, batch, names) or []
                if conditioner is not None:
                    picture = conditioner.picture(batch)
                    shown += [] if picture is None else [picture.cpu()]
        return Pictures(torch.cat(drawn), told or None, torch.cat(shown) if shown else None)

    def check_guidance(self, scale: float) -> None:
        """Whether the run can be guided away from its own null condition.

        Raises:
            ValueError: the scale is not 1, and nothing trained the null condition.
        """
        conditional = self.model.conditioner is not None
        if conditional and scale != 1 and self.config.get("condition_dropout") == 0:
            raise ValueError(
                f"guidance {scale:g} needs a null condition, which this run did not learn "
                "(condition_dropout=0): only guidance=1, a weak model or a classifier will do"
            )

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """Of the run's data; empty where they are not known here."""
        try:
            names: tuple[str, ...] = instantiate(self.config["data"], DATA).class_names()
        except (OSError, ValueError, ImportError, ConfigError, TypeError):
            return ()
        return names

    @cached_property
    def validation(self) -> Any:
        """The validation split of the run's data."""
        data = instantiate(self.config["data"], DATA)
        data.prepare()
        return data.images("validation")


def load(run: str | Path, *, averaged: bool = True, device: str = "auto") -> TrainedModel:
    """The model of a run directory (its newest checkpoint) or of a checkpoint file.

    Loading executes nothing that the file brings: tensors and plain containers are read, and the
    model is built from the config behind the allow-list of targets, of networks and diffusion only.

    Args:
        run: directory or file.
        averaged: the exponential moving average of the weights rather than the last ones.
        device: "auto" takes a GPU where there is one.

    Raises:
        FileNotFoundError: there is no checkpoint.
        UnsafeFile: the file is no whole checkpoint of unnoise, or its config names
            what is not to be called.
    """
    path = find_checkpoint(Path(run))
    content = load_tensors(path)
    if not is_whole(path):
        raise UnsafeFile(path, "is damaged: it is not what was written")
    prefix = "ema.model." if averaged else "model."
    try:
        config: dict[str, Any] = content["config"]
        state = {
            key.removeprefix(prefix): value
            for key, value in content["state_dict"].items()
            if key.startswith(prefix)
        }
        weights = {
            key.removeprefix("denoiser.network."): value
            for key, value in state.items()
            if key.startswith("denoiser.network.")
        }
        check_fit(path, lambda: instantiate(config["network"], MODEL), weights)
        size = config["data"]["image_size"]
        model = DiffusionModel(
            Denoiser(
                instantiate(config["network"], MODEL),
                instantiate(config["prediction"], MODEL),
                config.get("learned_variance", False),
            ),
            instantiate(config["schedule"], MODEL),
            (config["data"]["channels"], size, size),
            instantiate(config["conditioning"], MODEL),
        )
        model.load_state_dict(state)
        sampler = instantiate(config["sampler"], MODEL)
    except UnsafeFile:
        raise
    except (KeyError, TypeError, AttributeError, RuntimeError, ValueError, ConfigError) as error:
        raise UnsafeFile(path, f"is not a whole checkpoint of unnoise: {error}") from error
    model.eval().requires_grad_(False).to(named_device(device))
    return TrainedModel(model, sampler, config, path)
