"""What a run is made of. Does not import Lightning, so that a config is checked quickly."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field
from torch import nn

from unnoise.data.source import ImageSource
from unnoise.diffusion.denoiser import Denoiser, Prediction
from unnoise.diffusion.objectives import Objective
from unnoise.diffusion.samplers import Sampler
from unnoise.diffusion.schedules import NoiseSchedule
from unnoise.diffusion.times import TimeSampler
from unnoise.models.diffusion import DiffusionModel
from unnoise.networks.conditioning import Conditioner
from unnoise.training.optimization import OptimizerFactory

if TYPE_CHECKING:
    from lightning import Callback, Trainer


Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """What a run is made of: one field for each key of ``conf/train.yaml``."""

    name: str
    data: ImageSource
    network: nn.Module
    schedule: NoiseSchedule
    prediction: Prediction
    objective: Objective
    times: TimeSampler
    sampler: Sampler
    conditioning: Conditioner | None
    optimizer: OptimizerFactory
    callbacks: "dict[str, Callback]"
    logger: Callable[..., Any]
    trainer: "Callable[..., Trainer]"
    seed: Annotated[int, Field(ge=0)]
    max_steps: Count
    batch_size: Count
    accumulate: Count
    precision: Literal["auto", "fp32", "bf16", "fp16"]
    compile: bool
    flip: bool
    workers: Annotated[int, Field(ge=0)]
    validate_every: Count
    validation_images: Count
    warmup_steps: Annotated[int, Field(ge=0)]
    lr_decay: Literal["constant", "cosine"]
    gradient_clip: Annotated[float, Field(gt=0)] | None
    ema_decay: Annotated[float, Field(ge=0, lt=1)]
    condition_dropout: Share
    learned_variance: bool
    rank_timeout: Annotated[float, Field(gt=0)]
    metric: str
    sweep: Literal["run", "status"]
    resume: bool | str

    def model(self) -> DiffusionModel:
        """The denoiser with its schedule and conditioner."""
        shape = (self.data.channels, self.data.image_size, self.data.image_size)
        denoiser = Denoiser(self.network, self.prediction, self.learned_variance)
        return DiffusionModel(denoiser, self.schedule, shape, self.conditioning)
