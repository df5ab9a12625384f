"""Samples of a trained model: by sampler, guidance scale, caption, sampling noise and latent."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import torch
from PIL import Image
from pydantic import Field
from torch import Tensor
from tqdm import tqdm

from unnoise.config.numbers import Count, Number
from unnoise.data.source import HoldsOut
from unnoise.diffusion.editing import slerp
from unnoise.diffusion.levels import Variance
from unnoise.diffusion.noise import Noise
from unnoise.diffusion.samplers import Ancestral, Sampler, steps_for
from unnoise.diffusion.schedules import NoiseSchedule
from unnoise.models.base import GenerativeModel, a
from unnoise.models.diffusion import diffusion_model
from unnoise.models.latent import LatentModel
from unnoise.models.trained import TrainedModel
from unnoise.report.sheets import grid, table


class ModelFigure(ABC):
    """A figure of a trained model, by default one of diffusion, its sampler and its data."""

    @abstractmethod
    def draw(self, trained: TrainedModel) -> Image.Image:
        """The figure, RGB.

        Raises:
            ValueError: the figure cannot be drawn for such a model.
        """

    def check(self, model: GenerativeModel) -> None:
        """ValueError if the model is of another family than the figure takes."""
        diffusion_model(model, "this figure")

    def guidance(self, sampler: Sampler) -> Sequence[float]:
        """The guidance scales of its samplers."""
        return (sampler.guidance.scale,)


@dataclass(frozen=True)
class Samplers(ModelFigure):
    """Samplers at equal numbers of network evaluations, from the same noise.

    Each cell has ``pictures`` samples, two in a row.
    """

    samplers: dict[str, Sampler]
    evaluations: Sequence[Count] = (5, 10, 20, 50, 250, 1000)
    pictures: Count = 4
    seed: Number = 0

    def draw(self, trained: TrainedModel) -> Image.Image:
        """A row for each sampler, a column for each number of evaluations."""
        model = trained.model
        rows = {name: self._counted(name, model.schedule) for name in self.samplers}
        noise, batch = _start(trained, self.pictures, self.seed)
        cells = []
        for name, row in rows.items():
            shown = tqdm(row, name, leave=False, disable=None)
            cells.append([_cell(model.sample(each, noise, batch)) for each in shown])
        return table(
            cells,
            list(self.samplers),
            [str(count) for count in self.evaluations],
            "Samplers at equal cost",
            "columns: network evaluations per picture; every cell starts from the same noise",
        )

    def guidance(self, sampler: Sampler) -> Sequence[float]:
        """The scales of its own samplers."""
        return [each.guidance.scale for each in self.samplers.values()]

    def _counted(self, name: str, schedule: NoiseSchedule) -> list[Sampler]:
        """A sampler at each number of evaluations, all checked before any is used."""
        each, row = self.samplers[name], []
        for count in self.evaluations:
            row.append(replace(each, steps=steps_for(count, each.stepper)))
            try:
                schedule.grid(row[-1].steps, each.spacing)
            except ValueError as error:
                reason = f"{name} with {count} evaluations: {error}"
                raise ValueError(f"{reason}; leave them out of figure.evaluations") from error
        return row


@dataclass(frozen=True)
class GuidanceScales(ModelFigure):
    """Classifier-free guidance at several scales, for ``rows`` conditions, from the same noise.

    Each cell has ``pictures`` samples, two in a row.
    """

    scales: Sequence[Annotated[float, Field(ge=0)]] = (0, 1, 2, 3, 5, 8)
    rows: Count = 5
    pictures: Count = 4
    seed: Number = 0

    def draw(self, trained: TrainedModel) -> Image.Image:
        """A row for each condition, a column for each scale; a picture that is a prompt first."""
        model, sampler = trained.model, trained.sampler
        if model.conditioner is None:
            raise ValueError("the model is unconditional: there is nothing to guide it towards")
        numbers = torch.arange(self.rows * self.pictures, device=model.device)
        prompts = trained.prompts()
        batch = prompts.batch(numbers // self.pictures)
        noise = Noise(self.seed, numbers % self.pictures)
        heads, cells = [], []
        if (shown := prompts.pictures(batch)) is not None:
            heads.append("prompt")
            cells.append([_cell(each[:1]) for each in torch.split(shown, self.pictures)])
        for scale in tqdm(self.scales, "scales", leave=False, disable=None):
            guided = replace(sampler, guidance=replace(sampler.guidance, scale=scale))
            x = model.sample(guided, noise, batch)
            heads.append(f"s = {scale:g}")
            cells.append([_cell(each) for each in torch.split(x, self.pictures)])
        captions = prompts.captions(batch) or [""] * len(numbers)
        return table(
            list(zip(*cells, strict=True)),
            captions[:: self.pictures],
            heads,
            "Classifier-free guidance",
            "unconditional + s·(conditional − unconditional): s = 0 is unconditional, s = 1 is no "
            "guidance; every cell starts from the same noise",
        )

    def guidance(self, sampler: Sampler) -> Sequence[float]:
        """Its own scales."""
        return self.scales


@dataclass(frozen=True)
class Captions(ModelFigure):
    """Samples for given ``captions``, else for ``count`` captions of the data.

    If the data hold some combinations out, there are as many of these.
    """

    captions: Annotated[Sequence[str], Field(min_length=1)] | None = None
    count: Count = 10
    columns: Count = 5
    seed: Number = 0

    def draw(self, trained: TrainedModel) -> Image.Image:
        """A grid for each source of captions."""
        model = trained.model
        if model.conditioner is None or model.conditioner.reads != ("caption",):
            raise ValueError("the model does not read captions: take one with a text conditioning")
        sources = {"given": self.captions} if self.captions else self._captions(trained)
        cells = []
        for captions in sources.values():
            ids = torch.arange(len(captions), device=model.device)
            noise = Noise(self.seed, ids)
            x = model.sample(trained.sampler, noise, {"caption": list(captions)})
            cells.append([grid(x.cpu(), self.columns, captions=captions)])
        title, note = "Samples for captions", "each picture is drawn for the caption below it"
        return table(cells, list(sources), [], title, note)

    def _captions(self, trained: TrainedModel) -> dict[str, Sequence[str]]:
        data, seen = trained.source, trained.validation.captions
        if seen is None:
            raise ValueError("the data has no captions: give your own as figure.captions=[…]")
        if not isinstance(data, HoldsOut):
            return {"of the validation split": seen[: self.count]}
        held_out = data.held_out(self.count).captions
        assert held_out is not None
        return {"as in training": seen[: self.count], "with something held out": held_out}


@dataclass(frozen=True)
class SamplingNoise(ModelFigure):
    """Ancestral sampling with each variance of the noise, and without noise (DDPM algorithm 2)."""

    variances: Sequence[Variance | Literal["none"]] = ("beta", "posterior", "none")
    pictures: Count = 8
    seed: Number = 0

    def draw(self, trained: TrainedModel) -> Image.Image:
        """A row for each variance; the samples of a column start from the same noise."""
        noise, batch = _start(trained, self.pictures, self.seed)
        names = {"beta": "σ² = β", "posterior": "σ² = β̃", "learned": "σ² learned", "none": "σ = 0"}
        cells = []
        for variance in tqdm(self.variances, "variances", leave=False, disable=None):
            ancestral = replace(trained.sampler, stepper=Ancestral(variance))
            x = trained.model.sample(ancestral, noise, batch)
            cells.append([grid(x.cpu(), self.pictures, width=960)])
        return table(
            cells,
            [names[variance] for variance in self.variances],
            [],
            "Noise or no noise in sampling",
            "x_s = mean of q(x_s | x_t, x̂0) + σ·z; each column starts from the same x_T",
        )


@dataclass(frozen=True)
class Latents(ModelFigure):
    """``rows`` walks of ``pictures`` from one latent to another on a great circle, ends included.

    For models that draw from a latent in one call. The ends of row k are those of samples 2k and
    2k + 1 of ``seed``; a conditional model has the condition of sample k all along row k.
    """

    rows: Count = 6
    pictures: Annotated[int, Field(ge=2)] = 9
    seed: Number = 0

    def draw(self, trained: TrainedModel) -> Image.Image:
        """A row for each walk."""
        model = trained.model
        ids = torch.arange(2 * self.rows, device=model.device)
        z = trained.sampler.scale * model.latents(Noise(self.seed, ids))
        batch = trained.prompts().batch(ids[: self.rows])
        share = torch.linspace(0, 1, self.pictures, device=model.device)
        cells = []
        with torch.inference_mode():
            vectors = model.vector(batch, ids[: self.rows])
            for k in range(self.rows):
                first, last = (each.expand(self.pictures, *each.shape) for each in z[2 * k :][:2])
                vector = None if vectors is None else vectors[k].expand(self.pictures, -1)
                signal = model.generate(slerp(first, last, share), vector)
                cells.append([grid(model.codec.decode(signal).cpu(), self.pictures, width=960)])
        return table(
            cells,
            trained.prompts().captions(batch) or [""] * self.rows,
            [],
            "From latent to latent",
            "left and right are samples; between them their latents are, on a great circle",
        )

    def check(self, model: GenerativeModel) -> None:
        """ValueError if there are no latents that a call makes pictures of."""
        if not isinstance(model, LatentModel):
            raise ValueError(f"this figure takes a GAN, a VAE or a flow, not {a(model)}")

    def guidance(self, sampler: Sampler) -> Sequence[float]:
        """None."""
        return ()


def _start(trained: TrainedModel, n: int, seed: int) -> tuple[Noise, dict[str, Any]]:
    """The noise of n samples, and what their conditions are."""
    ids = torch.arange(n, device=trained.model.device)
    return Noise(seed, ids), trained.prompts().batch(ids)


def _cell(x: Tensor) -> Image.Image:
    """Pictures (N, C, H, W), two in a row."""
    return grid(x.cpu(), min(2, len(x)), width=160)
