"""The quality of drawn pictures in numbers while a run trains."""

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.utilities.seed import isolate_rng
from pydantic import Field
from torchmetrics import MetricCollection

from unnoise.data.source import ImageSource, Split
from unnoise.diffusion.samplers import Sampler
from unnoise.evaluation.extractors.base import Extractor
from unnoise.evaluation.extractors.find import find_extractor
from unnoise.evaluation.metrics import Compare
from unnoise.evaluation.neighbours import K_DENSITY
from unnoise.evaluation.quality import known, quality
from unnoise.evaluation.reference import reference
from unnoise.models.prompts import Prompts
from unnoise.models.trained import draw
from unnoise.training.callbacks.measurement import Count, Measurement
from unnoise.training.data_module import ImageDataModule
from unnoise.training.module import GenerativeModule

Pictures = Annotated[int, Field(gt=K_DENSITY)]


class Quality(Measurement):
    """Draws pictures number 0 … count − 1 from the averaged model and holds them against real ones.

    Each process draws its share, ``batch_size`` at a time; the metrics are over all of them. Always
    the same pictures are drawn, from the same noise, so that what changes is the model.

    Args:
        sampler: draws them.
        every: optimizer steps between measurements.
        count: pictures to draw. A distance of few pictures is too large, so compare equal counts.
        reference_count: real pictures of ``split``, chosen as by ``spread``; all, if it has fewer.
        metrics: kinds of metrics, such as "fd" or "precision", and functions of features.
        extractor: "auto" is the one for the data set.
        weights: file of the extractor's weights, where it has one.
        resize: how pictures come to the extractor's size.
        split: of the real pictures.
        batch_size: drawn at a time.

    Raises:
        ValueError: no metric is named, or one that there is not.
    """

    seconds = "quality/seconds"

    def __init__(
        self,
        sampler: Sampler,
        every: Count = 1000,
        count: Pictures = 1000,
        reference_count: Pictures = 10_000,
        metrics: Sequence[str | Compare] = ("fd", "precision", "recall"),
        extractor: str = "auto",
        weights: str | None = None,
        resize: Literal["original", "antialias"] = "original",
        split: Split = "train",
        batch_size: Count = 250,
    ) -> None:
        super().__init__(every)
        self.sampler, self.count, self.reference_count = sampler, count, reference_count
        self.metrics, self.split, self.batch_size = known(metrics), split, batch_size
        self.extractor, self.weights, self.resize = extractor, weights, resize
        self._ready: tuple[Extractor, MetricCollection] | None = None

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Make extractor and reference ready: first one process of each machine, then the others.

        Raises:
            ValueError: the extractor cannot be had, or the reference is too small for a metric.
        """
        with isolate_rng(include_cuda=module.device.type == "cuda"):
            for turn in (True, False):
                if (trainer.local_rank == 0) == turn:
                    self._ready = self._prepare(trainer)
                trainer.strategy.barrier("quality")

    def find(self, source: ImageSource, device: torch.device) -> Extractor:
        """The extractor for a data set.

        Raises:
            ValueError: there is no such extractor, or what it needs is not there.
        """
        return find_extractor(self.extractor, source, device, self.weights, self.resize)

    def _prepare(self, trainer: Trainer) -> tuple[Extractor, MetricCollection]:
        data, device = _data(trainer), trainer.strategy.root_device
        extractor = self.find(data.source, device)
        images = data.train_images if self.split == "train" else data.validation_split
        real = reference(images, self.split, self.reference_count, extractor, device)
        metrics = quality(real, self.metrics)
        return extractor, metrics.to(device if device.type == "cuda" else "cpu")  # as NCCL wants

    def measure(self, trainer: Trainer, module: GenerativeModule) -> dict[str, float]:
        """quality/fd_garments and the like."""
        assert self._ready is not None, "on_fit_start has not run"
        extractor, metrics = self._ready
        model, data = module.ema.model, _data(trainer)
        prompts = Prompts(model, lambda: data.validation_split)
        metrics.reset()
        share = range(self.count)[trainer.global_rank :: trainer.world_size]
        for start in range(0, len(share), self.batch_size):
            ids = share[start : start + self.batch_size]
            with trainer.precision_plugin.forward_context():
                pixels = draw(model, self.sampler, prompts, module.seed, ids, len(ids)).pixels
            metrics.update(extractor(pixels.to(module.device)))
        return {f"quality/{name}": float(value) for name, value in metrics.compute().items()}


def _data(trainer: Trainer) -> ImageDataModule:
    data = trainer.datamodule  # type: ignore[attr-defined]
    assert isinstance(data, ImageDataModule)
    return data
