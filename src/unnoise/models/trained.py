"""A trained model from a checkpoint, with the data of its run."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

from torch import Tensor
from tqdm import tqdm

from unnoise.config.nodes import DATA, MODEL, instantiate
from unnoise.config.problems import ConfigError
from unnoise.data.content import Facts, difference
from unnoise.data.source import Images, ImageSource, Split
from unnoise.diffusion.editing import Edit
from unnoise.diffusion.levels import NoiseLevel
from unnoise.diffusion.samplers import Sampler, Watch, steps_taken
from unnoise.distributed.devices import named_device
from unnoise.models.averages import Averaged, NoAverage, reconstructed
from unnoise.models.base import Classifier
from unnoise.models.build import build
from unnoise.models.diffusion import DiffusionModel
from unnoise.models.drawn import Drawn, draw
from unnoise.models.prompts import Prompts
from unnoise.networks.autoencoders import DECODE_PIXELS, ConvolutionalAutoencoder
from unnoise.networks.conditioning import TextConditioner
from unnoise.runs import manifest
from unnoise.runs.checkpoints import find_checkpoint, read_checkpoint
from unnoise.runs.layout import RunDirectory, shown
from unnoise.untrusted import UnsafeFile

DataChanged = Literal["refuse", "accept"]


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """A model from a checkpoint, with the sampler, the config and the data of its run.

    Args:
        model: in evaluation mode.
        sampler: of the run, or what is to be taken instead.
        config: of the run.
        checkpoint: its file.
        facts: what the run's data hold; an older run may not say it all.
        data_root: where the data are now, if not where the config says.
        data_changed: "accept" takes data that are not those of the run; "refuse" compares them.
        data: taken instead of the run's, and not compared.
    """

    model: Any  # a GenerativeModel, and where only diffusion will do, a DiffusionModel
    sampler: Any  # a recipe of its family
    config: dict[str, Any]
    checkpoint: Path
    facts: Facts = field(default_factory=dict)
    data_root: str | None = None
    data_changed: DataChanged = "refuse"
    data: ImageSource | None = None

    @classmethod
    def load(
        cls,
        run: str | Path,
        *,
        averaged: Averaged = True,
        device: str = "auto",
        data_root: str | None = None,
        data_changed: DataChanged = "refuse",
    ) -> Self:
        """The model of a run directory (its newest checkpoint) or of a checkpoint file.

        Loading executes nothing of the file: tensors and plain containers are read, and the model
        is built from the config by the allow-list of networks and diffusion.

        Args:
            run: directory or file.
            averaged: the exponential moving average of the weights rather than the last ones; a
                number is the relative length of another average, made of those that the run kept.
            device: "auto" takes a GPU where there is one.
            data_root: where the run's data are now, if not where the config says.
            data_changed: "accept" takes data there that are not those of the run.

        Raises:
            FileNotFoundError: there is no checkpoint.
            UnsafeFile: the file is no whole checkpoint of unnoise, or its config names what must
                not be called.
            NoAverage: no average of that length can be made of what the run kept.
        """
        path = find_checkpoint(Path(run).expanduser())
        content = read_checkpoint(path)
        prefix = "ema.model." if averaged else "model."
        try:
            config: dict[str, Any] = content["config"]
            if isinstance(averaged, bool):
                state = {
                    key.removeprefix(prefix): value
                    for key, value in content["state_dict"].items()
                    if key.startswith(prefix)
                }
            else:
                state = reconstructed(path, content, averaged)
            if not state and not averaged:
                raise UnsafeFile(path, "has no last weights, only their average")
            model = build(path, content["model"], config, state)
            model.load_state_dict(state)
            model.codec.check()
            sampler = instantiate(config["sampler"], MODEL)
            model.check_recipe(sampler)
            facts = _facts(path, content)
        except (UnsafeFile, NoAverage):
            raise
        except Exception as error:  # whatever a damaged config makes a constructor raise
            raise UnsafeFile(path, f"is not a whole checkpoint of unnoise: {error}") from error
        model.eval().requires_grad_(False).to(named_device(device))
        return cls(model, sampler, config, path, facts, data_root, data_changed)

    def draw(
        self,
        n: int,
        *,
        sampler: Sampler | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        seed: int = 0,
        first: int = 0,
        labels: int | str | Sequence[int | str] | None = None,
        captions: str | Sequence[str] | None = None,
        negative: str | Sequence[str] | None = None,
        images: Tensor | None = None,
        edit: Edit | None = None,
        weak: "TrainedModel | None" = None,
        classifier: Classifier | None = None,
        batch_size: int = 64,
        decode_pixels: int = DECODE_PIXELS,
        progress: bool = False,
        watch: Watch | None = None,
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
            labels: class prompts, numbers or names, in turn; default: all classes, in turn.
            captions: text prompts, in turn; default: those of the validation split.
            negative: captions of what guidance leads away from, in turn; default, and "": from the
                null condition.
            images: picture prompts (N, C, H, W) uint8, in turn; default: the validation split.
            edit: Inpaint, ImageToImage, Interpolate or Posterior: start from pictures.
            weak: a worse model of the same schedule, to guide away from (autoguidance).
            classifier: of noisy pictures, to guide by; then ``labels`` are its classes.
            batch_size: pictures drawn at a time.
            decode_pixels: of latents, how many pixels are decoded at a time; a larger picture is
                decoded in strips, which is the same up to rounding, in less memory.
            progress: show a bar, and say on stderr which captions are not read to their end.
            watch: sees the signal of each batch after each step; what it raises ends the drawing.

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
        negative = [negative] if isinstance(negative, str) else negative
        labels = [labels] if isinstance(labels, int | str) else labels
        words = {"caption": captions, "negative": negative}
        prompts = self.prompts({"label": labels, "image": images, **words}, classifier)
        prompts.check_edit(edit)
        prompts.check_number(first + n)
        if progress:
            self._say_what_is_cut("captions", captions or ())
            self._say_what_is_cut("negative captions", negative or ())
        for part in self.model.modules():
            if isinstance(part, ConvolutionalAutoencoder):
                part.decode_pixels = decode_pixels
        steps = steps_taken(self.model.steps(sampler), 1 if edit is None else edit.strength)
        with tqdm(
            total=n * steps,
            disable=not progress,
            leave=False,
            bar_format="drawing {percentage:3.0f}% {bar} [{elapsed}<{remaining}]",
        ) as bar:

            def after_step(x: Tensor, level: NoiseLevel) -> None:
                bar.update(len(x))
                if watch is not None:
                    watch(x, level)

            ids = range(first, first + n)
            return draw(self.model, sampler, prompts, seed, ids, batch_size, after_step, **guides)

    def prompts(
        self, given: dict[str, Any] | None = None, classifier: Classifier | None = None
    ) -> Prompts:
        """The prompts of each picture: those given, else the run's defaults."""
        reads = self.model.conditioner.reads if self.model.conditioner else ()
        names = self.class_names if "label" in reads else ()
        classes = self.config["data"].get("classes")
        return Prompts(self.model, lambda: self.validation, names, given, classes, classifier)

    def _say_what_is_cut(self, what: str, texts: Sequence[str]) -> None:
        parts = self.model.conditioner.modules() if self.model.conditioner else ()
        readers = [part for part in parts if isinstance(part, TextConditioner)]
        for line in (part.cut_off(texts, f"{len(texts):,} {what}") for part in readers):
            if line is not None:
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
        """The run's data, or what is taken instead."""
        if self.data is not None:
            return self.data
        root = {} if self.data_root is None else {"root": self.data_root}
        source: ImageSource = instantiate(self.config["data"] | root, DATA)
        return source

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """By label, as the run was trained; of an older run those of its data, if they are here."""
        if "classes" in self.facts:
            return tuple(self.facts["classes"])
        try:
            return self.source.class_names()
        except (OSError, ValueError, ImportError, ConfigError, TypeError):
            return ()

    @cached_property
    def validation(self) -> Images:
        """The validation split of the run's data; see ``images``."""
        return self.images("validation")

    def images(self, split: Split) -> Images:
        """A split of the run's data.

        Raises:
            ValueError: the run was trained on others; the message says what differs.
        """
        self.source.prepare()
        images = self.source.images(split)
        if self.data is None and self.data_changed == "refuse":
            kept = RunDirectory.of(self.checkpoint).content
            names, splits = self.source.class_names(), {split: images}
            if changed := difference(self.facts, kept, names, splits):
                trained = f"data: {shown(self.checkpoint)} was trained on others: {changed}"
                raise ValueError(f"{trained}; data_changed=accept takes these")
        return images


def _facts(path: Path, content: dict[str, Any]) -> Facts:
    """What the run's data hold: as the checkpoint says, or else the manifest of its run."""
    found: Facts = content.get("data") or manifest.read(RunDirectory.of(path).path).get("data", {})
    if not all(isinstance(name, str) for name in found.get("classes", ())):
        raise TypeError("its class names are not text")
    return found
