"""measure=autoencoder: how an autoencoder reconstructs, and what its latent is like."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from tqdm import tqdm

from unnoise.config.faults import Look, Run, run_fault
from unnoise.config.problems import ConfigError, Problem
from unnoise.data.source import ImageSource
from unnoise.distributed.environment import Place
from unnoise.distributed.group import broadcast, gather, join
from unnoise.evaluation import estimates, latents
from unnoise.evaluation.autoencoder_numbers import NO_EXTRACTOR, Row, numbers, text
from unnoise.evaluation.autoencoder_sheet import draw
from unnoise.evaluation.evaluator import BLOCK, Evaluator, drawn_samples
from unnoise.evaluation.extractors.base import Extractor
from unnoise.evaluation.extractors.find import find_extractor
from unnoise.evaluation.gallery import SampleSet, prompts_digest
from unnoise.evaluation.measure import Keys, Measure, Result
from unnoise.evaluation.reconstructions import Block, Pictures, look
from unnoise.models.autoencoder import AutoencoderModel
from unnoise.models.trained import TrainedModel
from unnoise.networks.autoencoders import Trained
from unnoise.runs.averaged import weights_digest
from unnoise.runs.checkpoints import find_checkpoint
from unnoise.runs.layout import RunDirectory


@dataclass(frozen=True, kw_only=True)
class AutoencoderSheet(Measure):
    """The keys of ``conf/measure/autoencoder.yaml``."""

    run: Run
    averaged: bool
    n: Annotated[int, Field(ge=3)] | None  # for an error one of three is left out
    extractor: str
    weights: str | None
    diffusion: Annotated[str | None, Look(run_fault)]

    name = "autoencoder"

    def conflicts(self) -> Iterator[Problem]:
        """What is wrong between the keys, whatever the run is."""
        if self.diffusion is not None and not self.averaged:
            reason = "must be true with diffusion=…, which is in the latent of the averaged weights"
            yield Problem("averaged", reason)

    def problems(self, keys: Keys) -> Iterator[Problem]:
        """What is wrong between the keys and the run."""
        wrong = list(self.model_problems(self.averaged))
        yield from wrong
        if wrong:
            return
        trained = self.trained(self.averaged)
        if not isinstance(trained.model, AutoencoderModel):
            kind = type(trained.model).__name__
            yield Problem("run", f"measure=autoencoder takes an autoencoder, not a {kind}")
            return
        try:
            trained.prompts().check_number(self.n or 3)
        except ValueError as error:
            yield Problem("n", str(error))
        if self.diffusion is not None and (fault := self._latent_fault(trained, self.diffusion)):
            yield Problem("diffusion", fault)

    def measure(self, keys: Keys) -> Result | None:
        """Reconstruct, look, and write; the ranks share the pictures."""
        place, trained = join(), self.trained(self.averaged)
        if place.rank == 0:  # first, so that others than the run's are refused
            _ = trained.validation, self._extractor(trained.source)
        broadcast(None)
        images, extractor = trained.validation, self._extractor(trained.source)
        count = len(images) if self.n is None else self.n
        starts = range(0, count, BLOCK)[place.rank :: place.world_size]
        groups, mine = estimates.groups(count), {}
        for start in tqdm(starts, disable=not sys.stderr.isatty(), leave=False):
            rows = torch.arange(start, min(start + BLOCK, count))
            pictures = Pictures(images.read(rows), groups[rows])
            mine[start] = look(trained.model, pictures, extractor, self.batch_size, start == 0)
        drawn = []
        if self.diffusion is not None:
            drawn = [self._drawn(trained, self._drawing(self.diffusion), extractor, count, place)]
        found = {start: block for part in gather(mine) for start, block in part.items()}
        if place.rank > 0:
            return None
        whole = Block.whole([found[start] for start in sorted(found)])
        table = [*numbers(whole, extractor), *(row for row, _ in drawn)]
        about: dict[str, Any] = {
            "n": count,
            "averaged": self.averaged,
            "split": "validation",
            "data": images.fingerprint,
            "extractor": None if extractor is None else extractor.about,
        }
        for _, samples in drawn:
            about["diffusion"] = samples.record
        files = self.write_rows(about, [row.values for row in table])
        spectra = {name: latents.spectrum(power.sum(0)) for name, power in whole.powers.items()}
        title = f"{trained.config['name']}: {count} validation pictures"
        assert whole.shown is not None
        sheet = draw(files[-1].with_suffix(".png"), title, text(table), spectra, whole.shown)
        return Result(text(table), [*files, sheet])

    def _drawing(self, run: str) -> TrainedModel:
        """The model of a diffusion run."""
        return self.trained(averaged=True, checkpoint=find_checkpoint(Path(run)))

    def _latent_fault(self, trained: TrainedModel, run: str) -> str | None:
        """What is wrong with a diffusion run, which is to be in this latent and of these data."""
        try:
            drawing = self._drawing(run)
        except (ValueError, ConfigError) as error:
            return str(error)
        inside = getattr(drawing.model.codec, "autoencoder", None)
        own = weights_digest(trained.model.autoencoder.state_dict())
        if not isinstance(inside, Trained) or inside.digest.partition("-")[0] != own:
            return f"{run} is not in the latent of this run: train it with autoencoder={self.run}"
        free = "root", "size"  # a recipe may take fewer of the same pictures
        data = [
            {key: value for key, value in each.config["data"].items() if key not in free}
            for each in (trained, drawing)
        ]
        return None if data[0] == data[1] else f"{run} was trained on other data"

    def _drawn(
        self,
        trained: TrainedModel,
        drawing: TrainedModel,
        extractor: Extractor | None,
        n: int,
        place: Place,
    ) -> tuple[Row, SampleSet]:
        """The Fréchet distance of n pictures that a diffusion run draws, by all ranks."""
        samples = SampleSet(
            checkpoint=drawing.checkpoint,
            recipe=drawing.config["sampler"],
            prompts=prompts_digest(drawing),
        )
        if extractor is None:
            return Row("gFD", None, NO_EXTRACTOR), samples
        evaluator = Evaluator(
            source=trained.source,
            images=trained.images,
            device=self.torch_device,
            batch_size=self.batch_size,
            place=place,
            extractor_name=self.extractor,
            weights=self.weights,
            metrics=["fd"],
        )
        name, folder = drawing.config["name"], RunDirectory.of(drawing.checkpoint).evaluation
        gallery = evaluator.draw(
            folder / "drawn", samples, n, lambda: drawing, name, with_features=True
        )
        if place.rank > 0:
            return Row("gFD", None), samples
        about = drawn_samples(str(self.diffusion), name, gallery)
        score = evaluator.score(name, about, gallery.read(n), gallery.folder)
        ((metric, estimate),) = score.metrics.items()
        note = f"of {n} drawn by {name} after {samples.step} steps, less is better"
        return Row(f"g{metric}", estimate, note), samples

    def _extractor(self, source: ImageSource) -> Extractor | None:
        """What sees the pictures; None where it is to be the data's own, and there is none.

        Raises:
            ValueError: it is named, but is not there.
        """
        if self.extractor == "auto" and source.extractor is None:
            return None
        return find_extractor(self.extractor, source, self.torch_device, self.weights)
