"""The quality of drawn pictures in numbers while a run trains."""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, Literal

from lightning import LightningModule, Trainer
from lightning.pytorch.utilities.seed import isolate_rng
from pydantic import Field
from torch import Tensor

from unnoise.config.numbers import Count
from unnoise.config.problems import ConfigError
from unnoise.data.source import Split
from unnoise.distributed.environment import Place
from unnoise.evaluation.evaluator import Evaluator
from unnoise.evaluation.metrics import Compare
from unnoise.evaluation.neighbours import K_DENSITY
from unnoise.models.drawn import draw
from unnoise.models.prompts import Prompts
from unnoise.training.callbacks.measurement import Measurement
from unnoise.training.data_module import ImageDataModule
from unnoise.training.module import GenerativeModule

Pictures = Annotated[int, Field(gt=K_DENSITY)]


class Quality(Measurement):
    """Draws pictures number 0 … count − 1 from the averaged model and compares them with real ones.

    Each process draws its share; the metrics are over all of them. Always the same pictures are
    drawn, from the same noise, so that what changes is the model.

    Args:
        sampler: draws them, ``batch_size`` at a time, every ``every`` optimizer steps.
        count: pictures to draw. A distance of few pictures is too large, so compare equal counts.
        reference_count: real pictures of ``split``, chosen as by ``spread``; all, if it has fewer.
        metrics: kinds of metrics, such as "fd" or "precision", and functions of features.
        extractor: "auto" is the one for the data set.
        weights: file of the extractor's weights, where it has one.
        resize: how pictures come to the extractor's size.
        split: of the real pictures.
    """

    seconds = "quality/seconds"

    def __init__(
        self,
        sampler: Any,
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
        self.sampler, self.count = sampler, count
        self.evaluator = partial(
            Evaluator,
            metrics=metrics,
            reference_count=reference_count,
            extractor_name=extractor,
            weights=weights,
            resize=resize,
            split=split,
            batch_size=batch_size,
        )
        self._ready: Evaluator | None = None

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Make extractor and reference ready: first one process of each machine, then the others.

        Raises:
            ConfigError: more are to be reconstructed than there are validation pictures.
            ValueError: there is no such metric or extractor, or the reference is too small.
        """
        try:
            _prompts(trainer, module).check_number(self.count)
        except ValueError as error:
            raise ConfigError(f"quality of pictures, count {self.count}: {error}") from error
        data: ImageDataModule = trainer.datamodule  # type: ignore[attr-defined]
        splits = {"train": data.train_images, "validation": data.validation_split}
        self._ready = self.evaluator(
            source=data.source,
            device=trainer.strategy.root_device,
            images=splits.__getitem__,
            place=Place(trainer.global_rank, trainer.local_rank, trainer.world_size),
        )
        with isolate_rng(include_cuda=module.device.type == "cuda"):
            for turn in (True, False):
                if (trainer.local_rank == 0) == turn:
                    _ = self._ready.collection
                trainer.strategy.barrier("quality")

    def measure(self, trainer: Trainer, module: GenerativeModule) -> dict[str, float]:
        """quality/fd_garments and the like."""
        assert self._ready is not None, "on_fit_start has not run"
        model, prompts = module.ema.model, _prompts(trainer, module)

        def draw_some(ids: Sequence[int]) -> Tensor:
            with trainer.precision_plugin.forward_context():
                return draw(model, self.sampler, prompts, module.seed, ids, len(ids)).pixels

        values = self._ready.values(draw_some, self.count)
        return {f"quality/{name}": value for name, value in values.items()}


def _prompts(trainer: Trainer, module: Any) -> Prompts:
    """Those of the run's model and data."""
    return Prompts(module.ema.model, lambda: trainer.datamodule.validation_split)  # type: ignore[attr-defined]
