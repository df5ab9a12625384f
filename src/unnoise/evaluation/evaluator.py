"""The evaluator: samples, drawn or given, become features, and these become metrics."""

import hashlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchmetrics import MetricCollection
from tqdm import tqdm

from unnoise.data.pixels import ROUNDING, to_pixels
from unnoise.data.source import Images, ImageSource, Split
from unnoise.distributed.environment import ALONE, Place
from unnoise.evaluation.estimates import estimates, metrics_by_name
from unnoise.evaluation.extractors.base import Extractor, Features, extract
from unnoise.evaluation.extractors.find import find_extractor
from unnoise.evaluation.extractors.inception import Resize
from unnoise.evaluation.gallery import Gallery, SampleSet
from unnoise.evaluation.metrics import Compare
from unnoise.evaluation.reference import Reference, cached, reference, spread
from unnoise.evaluation.results import Fingerprint, Samples, Score
from unnoise.models.trained import TrainedModel

BLOCK = 256  # samples that are seen at a time, so that features do not hang on the batch size


@dataclass(frozen=True, kw_only=True)
class Evaluator:
    """Draws samples or takes given ones, sees them with an extractor, and measures them.

    ``draw`` and ``values`` are shared among the ranks; ``score`` is for one of them. Extractor and
    reference are made when they are first used; for ``extractor_name``, ``weights`` and ``resize``
    see ``find_extractor``.

    Args:
        source: the data that the samples are compared with.
        device: of extractor and metrics.
        batch_size: samples that each rank draws at a time.
        place: which rank this is.
        split: of the real pictures in the reference.
        reference_count: how many of them, chosen as by ``spread``; all, if there are fewer.
        metrics: names in KINDS, and functions of features; None are all of KINDS.
        images: opens a split; default: that of ``source``.
    """

    source: ImageSource
    device: torch.device
    batch_size: int
    place: Place = ALONE
    extractor_name: str = "auto"
    weights: str | None = None
    resize: Resize = "original"
    split: Split = "train"
    reference_count: int = 10_000
    metrics: Sequence[str | Compare] | None = None
    images: Callable[[Split], Images] | None = None

    @cached_property
    def extractor(self) -> Extractor:
        """What sees the samples.

        Raises:
            ValueError: there is no such extractor, or what it needs is not there.
        """
        name, weights = self.extractor_name, self.weights
        return find_extractor(name, self.source, self.device, weights, self.resize)

    @cached_property
    def reference(self) -> Reference:
        """The features of the real pictures."""
        images = self.real(self.split)
        return reference(images, self.split, self.reference_count, self.extractor, self.device)

    def real(self, split: Split) -> Images:
        """A split of the data."""
        return (self.images or self.source.images)(split)

    @cached_property
    def collection(self) -> MetricCollection:
        """The metrics that are computed over all ranks, on the CPU unless NCCL exchanges them."""
        found = metrics_by_name(self.reference, self.metrics)
        return found.to(self.device if self.device.type == "cuda" else "cpu")

    def draw(
        self,
        folder: Path,
        samples: SampleSet,
        n: int,
        load: Callable[[], TrainedModel],
        title: str,
        with_features: bool = False,
        **options: Any,
    ) -> Gallery:
        """The gallery of a set, below ``folder``, with samples 0 … n − 1 drawn by all ranks.

        ``load`` gives the model, and is called only if there is something to draw; the ``options``
        are further ones of its ``draw``. With features, the ranks then see all samples, each some
        blocks of them, and ``score`` finds the features in the gallery's folder.
        """
        gallery = Gallery(folder, samples)
        missing = sum(map(len, gallery.missing(n, self.batch_size, self.place)))
        if missing:
            print(f"drawing {missing} pictures: {title}", file=sys.stderr, flush=True)
            with tqdm(total=missing, unit="picture", leave=False, disable=None) as bar:
                gallery.draw(load(), n, batch_size=self.batch_size, place=self.place,
                             watch=bar.update, **options)  # fmt: skip
        self._wait()
        if with_features:
            blocks = torch.split(gallery.read(n), BLOCK)[self.place.rank :: self.place.world_size]
            for pixels in tqdm(blocks, "features", leave=False, disable=None):
                self._features(pixels, gallery.folder)
            self._wait()
        return gallery

    def _wait(self) -> None:
        if self.place.world_size > 1:
            torch.distributed.barrier()

    def values(self, draw: Callable[[Sequence[int]], Tensor], n: int) -> dict[str, float]:
        """The metrics of samples 0 … n − 1 by name, over all ranks; no sample is kept.

        ``draw`` makes the samples of some numbers, uint8 (B, *shape).
        """
        self.collection.reset()
        share = range(n)[self.place.rank :: self.place.world_size]
        for start in range(0, len(share), self.batch_size):
            pixels = draw(share[start : start + self.batch_size])
            self.collection.update(self.extractor(pixels.to(self.device)))
        return {name: float(value) for name, value in self.collection.compute().items()}

    def score(self, name: str, samples: Samples, pixels: Tensor, keep: Path | None = None) -> Score:
        """The metrics of samples uint8 (N, *shape), with errors.

        Their features are computed in blocks, and kept in a folder if one is given.
        """
        seen = [self._features(some, keep) for some in torch.split(pixels, BLOCK)]
        features = Features(*(torch.cat(parts) for parts in zip(*seen, strict=True)))
        real = self.reference.about
        fingerprint = Fingerprint(
            count=len(pixels),
            reference=f"{real['split']} {real['count']} of {real['data'][:12]}",
            extractor=f"{self.extractor.name} {self.extractor.digest[:12]}",
            resize=self.extractor.resize,
            rounding=ROUNDING,
            manifold=str(self.extractor.manifold),
        )
        return Score(name, samples, fingerprint, estimates(self.reference, features, self.metrics))

    def _features(self, pixels: Tensor, keep: Path | None) -> Features:
        """Of a block (B, *shape) uint8: those that a folder has of these very pictures, or new."""

        def compute() -> Features:
            return extract(self.extractor, [pixels], self.device)

        if keep is None:
            return compute()
        about = self.extractor.about | {"pictures": _digest(pixels)}
        return cached(about, compute, keep).features

    def controls(self, n: int) -> Iterator[Score]:
        """Of n real pictures that are not in the reference, and of as much noise.

        The first are the least that can be had. They are chosen as by ``spread``; if the other
        split has fewer than n, all are taken.
        """
        real = self.real("validation" if self.split == "train" else "train")
        n = min(n, len(real))
        pixels = mixed(torch.cat(list(spread(real, n))))
        yield self.score("real pictures", Samples(kind="real", source=real.fingerprint), pixels)
        noise = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0))
        yield self.score("noise", Samples(kind="noise", seed=0), to_pixels(noise))


def drawn_samples(run: str, name: str, gallery: Gallery) -> Samples:
    """What a gallery holds, for a score; the first word of ``name`` is that of the sampler."""
    (seconds, evaluations), recipe = gallery.cost, gallery.samples.recipe
    return Samples(
        kind="drawn",
        source=run,
        evaluations=evaluations,
        seconds=seconds,
        sampler=name.split()[0],
        steps=recipe.get("steps"),
        guidance=recipe.get("guidance", {}).get("scale"),
        step=gallery.samples.step,
        **gallery.samples.record,
    )


def mixed(pixels: Tensor) -> Tensor:
    """Samples in an order at random, always the same, so that errors do not depend on theirs."""
    return pixels[torch.randperm(len(pixels), generator=torch.Generator().manual_seed(0))]


def _digest(pixels: Tensor) -> str:
    digest = hashlib.sha256(repr(tuple(pixels.shape)).encode())
    digest.update(pixels.contiguous().numpy().data)
    return digest.hexdigest()
