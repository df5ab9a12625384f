"""measure=quality: distances between drawn and real samples, of one recipe or a grid of them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field

from unnoise.config.nodes import MODEL, instantiate
from unnoise.config.numbers import Count, Number
from unnoise.config.problems import Problem
from unnoise.data.decoding import Decoder
from unnoise.data.given import given_pictures
from unnoise.data.source import Images, ImageSource, Split
from unnoise.diffusion.samplers import Sampler
from unnoise.distributed.devices import lightning_precision, slow_bf16
from unnoise.distributed.environment import ALONE, Place
from unnoise.distributed.group import join
from unnoise.evaluation.estimates import metric_problems
from unnoise.evaluation.evaluator import Evaluator, drawn_samples, mixed
from unnoise.evaluation.frontier import plot
from unnoise.evaluation.gallery import Gallery, SampleSet, prompts_digest
from unnoise.evaluation.grid import sample_sets
from unnoise.evaluation.measure import Keys, Measure, Result, Scale
from unnoise.evaluation.metrics import Compare
from unnoise.evaluation.neighbours import K_DENSITY
from unnoise.evaluation.results import Samples, Score, save, table
from unnoise.models.averages import Averaged, parts
from unnoise.runs.checkpoints import find_checkpoints
from unnoise.runs.identity import digest
from unnoise.runs.layout import shown, telling

ELSEWHERE = Path("outputs") / "evaluation"
"""Where the scores of given pictures go."""
LOCAL = ("_target_", "device", "batch_size", "data_root", "data_changed", "columns")
"""Keys that say where and how it is measured, not what."""
Enough = Annotated[int, Field(gt=K_DENSITY)]


@dataclass(frozen=True, kw_only=True)
class Quality(Measure):
    """The keys of ``conf/measure/quality.yaml`` and of ``conf/grid``."""

    images: str | None
    data: ImageSource | None
    n: Enough
    metrics: list[str | Compare] | None
    extractor: str
    weights: str | None
    resize: Literal["original", "antialias"]
    reference: Split
    reference_count: Enough
    controls: bool
    checkpoints: Literal["newest", "all"] | list[Number]
    averaged: list[Averaged]
    sampler: Sampler | None
    samplers: dict[str, Sampler]
    baselines: dict[str, Sampler]
    steps: list[Count] | None
    evaluations: list[Count] | None
    guidance: list[Scale] | None
    seeds: list[Number]
    precision: Literal["auto", "fp32", "bf16"]
    columns: Literal["auto", "all"] = "auto"

    name = "quality"

    def conflicts(self) -> Iterator[Problem]:
        """What is wrong between the keys, whatever the run is."""
        if (self.run is None) == (self.images is None):
            yield Problem("run", "give either a run, as run=…, or pictures, as images=… data=…")
        elif self.images is not None:
            if not Path(self.images).exists():
                yield Problem("images", f"there is no {self.images}")
            if self.data is None:
                yield Problem("data", "missing: what they are compared with, as data=fashion_mnist")
        if self.steps is not None and self.evaluations is not None:
            yield Problem("evaluations", "steps are given too: leave one of them out")
        if self.sampler is not None and self.samplers:
            yield Problem("sampler", "the grid has its own: leave this out, or use grid=single")
        for message in () if self.metrics is None else metric_problems(self.metrics):
            yield Problem("metrics", message)
        for key in ("averaged", "seeds", "checkpoints", "steps", "evaluations", "guidance"):
            if getattr(self, key) == []:
                yield Problem(key, "is empty: give at least one")

    def problems(self, keys: Keys) -> Iterator[Problem]:
        """What is wrong between the keys and the run."""
        if self.run is None:
            return
        if slow := slow_bf16(self.precision, self.torch_device.type):
            yield Problem("precision", slow, "warning")
        wrong = list(self.model_problems(self.averaged[0], with_data=self.data is None))
        yield from wrong
        if any(problem.key == "run" for problem in wrong):
            return
        trained = self.trained(self.averaged[0])
        try:
            checkpoints = find_checkpoints(Path(self.run), self.checkpoints)
            sets = [*sample_sets(keys, trained.config["sampler"], checkpoints)]
        except ValueError as error:
            yield Problem("run", str(error))
            return
        try:
            trained.prompts().check_number(self.n)
        except ValueError as error:
            yield Problem("n", str(error))
        for name, samples in sets:
            try:
                trained.check_recipe(instantiate(samples.recipe, MODEL))
            except ValueError as error:
                yield Problem("samplers", f"{name}: {error}")
        lengths = [each for each in self.averaged if not isinstance(each, bool)]
        for checkpoint, length in product(checkpoints, lengths):
            try:
                parts(checkpoint, length)
            except ValueError as error:
                why = str(error).removeprefix("averaged: ")
                yield Problem("averaged", f"{shown(checkpoint)}: {why}")

    def measure(self, keys: Keys) -> Result | None:
        """Draw what is not drawn yet, measure, and write: the first rank measures."""
        place, device = join(), self.torch_device
        drawn = self._sample_sets(keys, device)
        source = self.data or self.trained(self.averaged[0]).source
        real = source if self.data else self.trained(self.averaged[0])
        evaluator = self.evaluator(source, real.images, place)
        if place.rank == 0:
            source.prepare()
            _ = evaluator.reference  # first, so that its errors come before anything is drawn
        galleries = []
        for number, (name, samples) in enumerate(drawn, 1):
            load = partial(self.trained, samples.averaged, samples.checkpoint)
            title = f"{name} (setting {number} of {len(drawn)})"
            drawn_to = self.folder / "drawn"
            gallery = evaluator.draw(drawn_to, samples, self.n, load, title, with_features=True)
            galleries.append((name, gallery))
        if place.rank > 0:
            return None
        request = self.beside({key: value for key, value in keys.items() if key not in LOCAL})
        name = digest([request, *(samples.key for _, samples in drawn)], 8)
        images = None if self.images is None else Path(self.images).stem
        settings = (
            [f"{len(drawn)}-settings"] if len(drawn) > 1 else [w for _, s in drawn for w in s.words]
        )
        words = ["quality", images, *settings, f"n-{self.n}"]
        path = telling(self.folder, words, name, ".json")
        scores: list[Score] = []
        for score in self._scores(evaluator, galleries):
            scores.append(score)
            about = {"measure": "quality", "unnoise": version("unnoise"), "request": request}
            files = save(path, scores, **about)
        if len(drawn) > 1:
            files.append(plot(path.with_suffix(".png"), scores, next(iter(scores[0].metrics))))
        every = self.columns == "all" or self.metrics is not None
        return Result(table(scores, every), files)

    def evaluator(
        self, source: ImageSource, images: Callable[[Split], Images], place: Place = ALONE
    ) -> Evaluator:
        """What measures pictures against those of a source, as the keys say."""
        return Evaluator(
            source=source,
            images=images,
            device=self.torch_device,
            batch_size=self.batch_size,
            place=place,
            extractor_name=self.extractor,
            weights=self.weights,
            resize=self.resize,
            split=self.reference,
            reference_count=self.reference_count,
            metrics=self.metrics,
        )

    @property
    def folder(self) -> Path:
        """Where results go."""
        return ELSEWHERE if self.run is None else super().folder

    def _sample_sets(self, keys: Keys, device: torch.device) -> list[tuple[str, SampleSet]]:
        """What the grid draws, with names; nothing if the pictures are given."""
        if self.run is None:
            return []
        fast = lightning_precision(self.precision, device.type) == "bf16-mixed"
        trained = self.trained(self.averaged[0])
        checkpoints = find_checkpoints(Path(self.run), self.checkpoints)
        own, prompts = trained.config["sampler"], prompts_digest(trained)
        return list(sample_sets(keys, own, checkpoints, "bf16" if fast else "fp32", prompts))

    def _scores(
        self, evaluator: Evaluator, galleries: Sequence[tuple[str, Gallery]]
    ) -> Iterator[Score]:
        """Of all galleries or of the given pictures, then of the controls, which are as many."""
        n = self.n
        for name, gallery in galleries:
            assert self.run is not None
            samples = drawn_samples(self.run, name, gallery)
            yield evaluator.score(name, samples, gallery.read(n), gallery.folder)
        if self.images is not None:
            path = Path(self.images)
            source = evaluator.source
            decoder = Decoder.of(source.shape, vars(source))
            pixels = given_pictures(path, decoder.range, decoder.most_pixels)
            n, shape = len(pixels), source.shape[1:]
            if pixels.shape[2:] != shape:
                (h, w), (height, width) = pixels.shape[2:], shape
                raise ValueError(
                    f"{path}: its pictures are {w} × {h}, the real ones {width} × {height}; "
                    "distances are between pictures of one size"
                )
            given = Samples(kind="given", source=str(path))
            yield evaluator.score(path.stem, given, mixed(pixels))
        if self.controls:
            yield from evaluator.controls(n)
