"""A trained model from a checkpoint, and drawing from a model under conditions."""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor
from tqdm import tqdm

from unnoise.config.nodes import DATA, MODEL, instantiate
from unnoise.config.problems import ConfigError
from unnoise.data.source import Images, ImageSource
from unnoise.diffusion.editing import Edit
from unnoise.diffusion.levels import NoiseLevel
from unnoise.diffusion.noise import Noise
from unnoise.diffusion.samplers import Sampler, Watch, steps_taken
from unnoise.distributed.devices import named_device
from unnoise.models.base import Classifier, GenerativeModel
from unnoise.models.build import build
from unnoise.models.diffusion import DiffusionModel
from unnoise.models.prompts import Prompts
from unnoise.networks.conditioning import TextConditioner
from unnoise.runs.checkpoints import check_layout, find_checkpoint, is_whole
from unnoise.untrusted import UnsafeFile, load_tensors


@dataclass(frozen=True, eq=False)
class Drawn:
    """N drawn pictures and their prompts, on the CPU.

    Args:
        pixels: (N, C, H, W) uint8.
        captions: the prompts as text, or None for an unconditional model.
        prompts: the prompts as pictures (N, 1 or C, h, w) uint8, where the model reads pictures.
    """

    pixels: Tensor
    captions: list[str] | None = None
    prompts: Tensor | None = None

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, rows: slice) -> Self:
        captions = None if self.captions is None else self.captions[rows]
        prompts = None if self.prompts is None else self.prompts[rows]
        return type(self)(self.pixels[rows], captions, prompts)

    @classmethod
    def joined(cls, parts: Iterable[Self]) -> Self:
        """All parts as one, in order."""
        pixels, captions, prompts = zip(
            *((p.pixels, p.captions, p.prompts) for p in parts), strict=True
        )
        return cls(
            torch.cat(pixels),
            None if captions[0] is None else [*chain(*captions)],
            None if prompts[0] is None else torch.cat(prompts),
        )


def draw(
    model: GenerativeModel,
    sampler: Sampler,
    prompts: Prompts,
    seed: int,
    ids: Iterable[int],
    batch_size: int = 64,
    watch: Watch | None = None,
    **guides: Any,
) -> Drawn:
    """One picture for each id: a function of seed and id alone, whatever the batch size.

    ``guides`` are further arguments of the model's ``sample``: an edit, a weak model, a classifier.
    """
    parts = []
    for some in torch.split(torch.tensor([*ids], device=model.device), batch_size):
        batch = prompts.batch(some)
        shown = prompts.captions(batch), prompts.pictures(batch)
        pixels = model.sample(sampler, Noise(seed, some), batch, watch, **guides).cpu()
        parts.append(Drawn(pixels, *shown))
    return Drawn.joined(parts)


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """A model from a checkpoint, with the sampler, the config and the data of its run.

    ``data_root`` is where the data are now, if not where the config says.
    """

    model: Any  # a GenerativeModel, and where only diffusion will do, a DiffusionModel
    sampler: Any  # a recipe of its family
    config: dict[str, Any]
    checkpoint: Path
    data_root: str | None = None

    def draw(
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
    ) -> Drawn:
        """Draw pictures first … first + n − 1 of ``seed``.

        A picture is a function of seed and number: the same whatever ``n`` and ``batch_size`` are.

        Args:
            n: how many.
            sampler: default: the run's.
            steps: instead of the sampler's own.
            guidance: instead of the scale of the sampler's own.
            seed: of all noise.
            first: number of the first picture.
            labels: class prompts, in turn by number; default: all classes, in turn.
            captions: text prompts, in turn; default: those of the validation split.
            images: picture prompts (N, C, H, W) uint8, in turn; default: the validation split.
            edit: Inpaint, ImageToImage or Interpolate: start from pictures.
            weak: a worse model of the same schedule, to guide away from (autoguidance).
            classifier: of noisy pictures, to guide by; then ``labels`` are its classes.
            batch_size: pictures drawn at a time.
            progress: show a bar, and say on stderr which captions are not read to their end.

        Raises:
            ValueError: prompts that the model does not read, or out of range; too many steps;
                guidance that the model was not trained for; a sampler or pictures unfit for the
                edit.
        """
        sampler = self.model.changed(sampler or self.sampler, steps, guidance)
        given = {"edit": edit, "weak": weak and weak.model, "classifier": classifier}
        guides = {name: value for name, value in given.items() if value is not None}
        if guides and not isinstance(self.model, DiffusionModel):
            raise ValueError(f"{' and '.join(guides)} are for diffusion models")
        if weak is None and classifier is None:
            self.check_recipe(sampler)
        captions = [captions] if isinstance(captions, str) else captions
        prompts = self.prompts({"label": labels, "caption": captions, "image": images}, classifier)
        prompts.check_edit(edit)
        if progress:
            self._say_what_is_cut(captions or ())
        steps = steps_taken(self.model.steps(sampler), 1 if edit is None else edit.strength)
        with tqdm(
            total=n * steps,
            disable=not progress,
            leave=False,
            bar_format="drawing {percentage:3.0f}% {bar} [{elapsed}<{remaining}]",
        ) as bar:

            def watch(x: Tensor, level: NoiseLevel) -> None:
                bar.update(len(x))

            ids = range(first, first + n)
            return draw(self.model, sampler, prompts, seed, ids, batch_size, watch, **guides)

    def prompts(
        self, given: dict[str, Any] | None = None, classifier: Classifier | None = None
    ) -> Prompts:
        """The prompts of each picture: those given, else the run's defaults."""
        reads = self.model.conditioner.reads if self.model.conditioner else ()
        names = self.class_names if "label" in reads else ()
        classes = self.config["data"].get("classes")
        return Prompts(self.model, lambda: self.validation, names, given, classes, classifier)

    def _say_what_is_cut(self, captions: Sequence[str]) -> None:
        parts = self.model.conditioner.modules() if self.model.conditioner else ()
        for part in parts:
            for text in captions if isinstance(part, TextConditioner) else ():
                if line := part.cut_off([text], f"the captions ({text[:40]!r} …)"):
                    print(f"warning: {line}", file=sys.stderr)

    def check_recipe(self, sampler: Sampler) -> None:
        """ValueError if a sampler, with guidance by the model's own condition, cannot be used."""
        self.model.check_recipe(sampler)
        if isinstance(sampler, Sampler):
            self.check_guidance(sampler.guidance.scale)

    def check_guidance(self, scale: float) -> None:
        """See the model's; the run's config says whether it learned a null condition."""
        self.model.check_guidance(scale, self.config.get("condition_dropout"))

    @cached_property
    def source(self) -> ImageSource:
        """The run's data."""
        root = {} if self.data_root is None else {"root": self.data_root}
        source: ImageSource = instantiate(self.config["data"] | root, DATA)
        return source

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """The class names of the run's data; empty where the data are not here."""
        try:
            return self.source.class_names()
        except (OSError, ValueError, ImportError, ConfigError, TypeError):
            return ()

    @cached_property
    def validation(self) -> Images:
        """The validation split of the run's data."""
        self.source.prepare()
        return self.source.images("validation")


def load(
    run: str | Path, *, averaged: bool = True, device: str = "auto", data_root: str | None = None
) -> TrainedModel:
    """The model of a run directory (its newest checkpoint) or of a checkpoint file.

    Loading executes nothing of the file: tensors and plain containers are read, and the model is
    built from the config by the allow-list of networks and diffusion.

    Args:
        run: directory or file.
        averaged: the exponential moving average of the weights rather than the last ones.
        device: "auto" takes a GPU where there is one.
        data_root: where the run's data are now, if not where the config says.

    Raises:
        FileNotFoundError: there is no checkpoint.
        UnsafeFile: the file is no whole checkpoint of unnoise, or its config names what must not
            be called.
    """
    path = find_checkpoint(Path(run))
    content = load_tensors(path)
    if not is_whole(path):
        raise UnsafeFile(path, "is damaged: it is not what was written")
    check_layout(path, content)
    prefix = "ema.model." if averaged else "model."
    try:
        config: dict[str, Any] = content["config"]
        state = {
            key.removeprefix(prefix): value
            for key, value in content["state_dict"].items()
            if key.startswith(prefix)
        }
        model = build(path, content["model"], config, state)
        model.load_state_dict(state)
        sampler = instantiate(config["sampler"], MODEL)
        model.check_recipe(sampler)
    except UnsafeFile:
        raise
    except Exception as error:  # whatever a damaged config makes a constructor raise
        raise UnsafeFile(path, f"is not a whole checkpoint of unnoise: {error}") from error
    model.eval().requires_grad_(False).to(named_device(device))
    return TrainedModel(model, sampler, config, path, data_root)
