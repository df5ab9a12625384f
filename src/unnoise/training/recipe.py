"""What a run is made of. Does not import Lightning, so that a config is checked quickly."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
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
    from lightning import Callback, LightningModule, Trainer


class Role(Enum):
    """What a key of the config decides. A key without a role decides what is trained."""

    SHOWN = "what a run draws and logs, and rounding: may change when it is resumed"
    MACHINE = "where and how fast it runs: the same run on another machine"
    NAME = "what it is called and compared by: the same run, but another sweep"
    CALL = "what is done this time"


Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, kw_only=True)
class Recipe(ABC):
    """The keys that every family has; a subclass adds its own. The config's root is its node."""

    name: Annotated[str, Role.NAME]
    data: ImageSource
    network: nn.Module
    conditioning: Conditioner | None
    sampler: Annotated[Any, Role.SHOWN]
    optimizer: OptimizerFactory
    callbacks: Annotated["dict[str, Callback]", Role.SHOWN]
    logger: Annotated[Callable[..., Any], Role.MACHINE]
    trainer: Annotated["Callable[..., Trainer]", Role.MACHINE]
    seed: Annotated[int, Field(ge=0)]
    max_steps: Count
    batch_size: Count
    accumulate: Annotated[Count, Role.SHOWN]
    precision: Literal["auto", "fp32", "bf16", "fp16"]
    compile: bool
    flip: bool
    workers: Annotated[int, Field(ge=0), Role.MACHINE]
    validate_every: Annotated[Count, Role.SHOWN]
    validation_images: Annotated[Count, Role.SHOWN]
    warmup_steps: Annotated[int, Field(ge=0)]
    lr_decay: Literal["constant", "cosine"]
    gradient_clip: Annotated[float, Field(gt=0)] | None
    ema_decay: Annotated[float, Field(ge=0, lt=1)]
    condition_dropout: Share
    rank_timeout: Annotated[float, Field(gt=0), Role.MACHINE]
    metric: Annotated[str, Role.NAME]
    sweep: Annotated[Literal["run", "status"], Role.CALL]
    resume: Annotated[bool | str, Role.CALL]

    @abstractmethod
    def module(self, config: dict[str, Any], rollbacks: int = 0) -> "LightningModule":
        """What Lightning trains: the model, its losses and optimizers.

        ``config`` is kept in checkpoints; ``rollbacks`` says how often the run went back to one.
        """


@dataclass(frozen=True, kw_only=True)
class DiffusionRecipe(Recipe):
    """A denoiser that is trained at every noise level of a schedule, and a sampler."""

    schedule: NoiseSchedule
    prediction: Prediction
    objective: Objective
    times: TimeSampler
    sampler: Annotated[Sampler, Role.SHOWN]
    learned_variance: bool

    def model(self) -> DiffusionModel:
        """The denoiser with its schedule and conditioner."""
        shape = (self.data.channels, self.data.image_size, self.data.image_size)
        denoiser = Denoiser(self.network, self.prediction, self.learned_variance)
        return DiffusionModel(denoiser, self.schedule, shape, self.conditioning)

    def module(self, config: dict[str, Any], rollbacks: int = 0) -> "LightningModule":
        """The module of ``unnoise.training.diffusion``."""
        from unnoise.training.diffusion import DiffusionModule

        return DiffusionModule(
            self.model(),
            self.objective,
            self.times,
            self.optimizer,
            ema_decay=self.ema_decay,
            seed=self.seed,
            max_steps=self.max_steps,
            condition_dropout=self.condition_dropout,
            warmup_steps=self.warmup_steps,
            lr_decay=self.lr_decay,
            gradient_clip=self.gradient_clip,
            config=config,
            rollbacks=rollbacks,
        )
