"""What a run is made of. Does not import Lightning, so that a config is checked quickly."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import Field
from torch import nn

from unnoise.config.numbers import Count
from unnoise.config.problems import UNKNOWN
from unnoise.data.source import ImageSource
from unnoise.diffusion.denoiser import Prediction
from unnoise.diffusion.objectives import Objective
from unnoise.diffusion.samplers import Sampler
from unnoise.diffusion.schedules import NoiseSchedule
from unnoise.diffusion.times import TimeSampler
from unnoise.models.averages import Length
from unnoise.models.codec import codec_of
from unnoise.networks.adversarial import (
    Discriminator,
    Generator,
    LatentSampler,
    PatchDiscriminator,
)
from unnoise.networks.autoencoders import (
    Autoencoder,
    ConvolutionalAutoencoder,
    Reconstruction,
    Trained,
)
from unnoise.networks.base import Backbone
from unnoise.networks.conditioning import Conditioner, ConditionShape
from unnoise.runs.identity import Role
from unnoise.training.autoencoder_rules import AUTOENCODER, of_pixels, unclipped
from unnoise.training.initial import Initial, consistency, same_levels, stages
from unnoise.training.optimization import OptimizerFactory
from unnoise.training.rules import DIFFUSION, SHARED, Rule

if TYPE_CHECKING:
    from unnoise.training.module import GenerativeModule


class Sets(NamedTuple):
    """Arguments of Lightning's Trainer that follow from a key."""

    names: tuple[str, ...]


Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, kw_only=True)
class Recipe(ABC):
    """The keys that every family has; a subclass adds its own. The config's root is its node."""

    name: Annotated[str, Role.NAME, Sets(("default_root_dir",))]
    data: ImageSource
    network: nn.Module
    conditioning: Conditioner | None
    sampler: Annotated[Any, Role.SHOWN]
    optimizer: OptimizerFactory
    callbacks: Annotated[dict[str, Any], Role.SHOWN, Sets(("callbacks", "enable_progress_bar"))]
    logger: Annotated[Callable[..., Any], Role.MACHINE, Sets(("logger",))]
    trainer: Annotated[Callable[..., Any], Role.MACHINE]
    seed: Annotated[int, Field(ge=0)]
    max_steps: Annotated[Count, Sets(("max_steps", "max_epochs", "fast_dev_run"))]
    batch_size: Count
    accumulate: Annotated[Count, Role.SHOWN, Sets(("accumulate_grad_batches",))]
    precision: Annotated[Literal["auto", "fp32", "bf16", "fp16"], Sets(("precision",))]
    compile: bool
    flip: bool
    workers: Annotated[int, Field(ge=0), Role.MACHINE]
    validate_every: Annotated[
        Count, Role.SHOWN, Sets(("val_check_interval", "check_val_every_n_epoch"))
    ]
    validation_images: Annotated[Count, Role.SHOWN]
    warmup_steps: Annotated[int, Field(ge=0)]
    lr_decay: Literal["constant", "cosine"]
    gradient_clip: Annotated[Annotated[float, Field(gt=0)] | None, Sets(("gradient_clip_val",))]
    ema_decay: Annotated[float, Field(ge=0, lt=1)]
    ema_lengths: Sequence[Length] = ()
    condition_dropout: Share
    rank_timeout: Annotated[float, Field(gt=0), Role.MACHINE]
    metric: Annotated[str, Role.NAME]
    sweep: Annotated[Literal["run", "status"], Role.CALL]
    resume: Annotated[bool | str, Role.CALL]
    data_changed: Annotated[Literal["refuse", "accept"], Role.CALL] = "refuse"
    until: Annotated[Count | None, Role.CALL] = None

    rules: ClassVar[tuple[Rule, ...]] = SHARED
    givers: ClassVar[tuple[str, ...]] = ("data", "conditioning")
    """Keys whose objects say what the networks are handed."""

    @classmethod
    @abstractmethod
    def handed(cls, config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """What the networks are handed besides what their YAML files say: key to arguments.

        ``config`` is that of the run, with the ``givers`` built. Where one of them is UNKNOWN, so
        is what follows from it.
        """

    def needs(self) -> Iterator[tuple[str, Callable[[], object]]]:
        """What a family's training loads besides, under the key that names it: to try it before.

        Loading raises FileNotFoundError or ValueError where it is not there.
        """
        yield from ()

    @abstractmethod
    def module(self, config: dict[str, Any], rollbacks: int = 0) -> "GenerativeModule":
        """What Lightning trains: the model, its losses and optimizers.

        The ``completed`` config is kept in checkpoints; ``rollbacks`` counts returns to one.
        """


@dataclass(frozen=True, kw_only=True)
class DiffusionRecipe(Recipe):
    """A denoiser that is trained at every noise level of a schedule, and a sampler.

    ``latent_cache`` is how many GB of latents may be kept on disk, over all runs; ``first_stage``
    the experiment that trains an autoencoder where none is given; ``initial`` the run whose weights
    it starts from.
    """

    network: Backbone
    schedule: NoiseSchedule
    prediction: Prediction
    objective: Objective
    times: TimeSampler
    sampler: Annotated[Sampler, Role.SHOWN]
    learned_variance: bool
    autoencoder: Autoencoder | None = None
    latent_cache: Annotated[float, Field(ge=0), Role.MACHINE] = 10.0
    first_stage: Annotated[str | None, Role.CALL] = None
    initial: Initial | None = None

    rules: ClassVar[tuple[Rule, ...]] = (
        *SHARED,
        *DIFFUSION,
        unclipped,
        of_pixels,
        consistency,
        stages,
        same_levels,
    )
    givers: ClassVar[tuple[str, ...]] = (*Recipe.givers, "autoencoder")

    @classmethod
    def handed(cls, config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """The network gets the shape of x, the channels of its output and what conditions it."""
        data, conditioner, autoencoder = (config[key] for key in cls.givers)
        learned = config.get("learned_variance") is True
        shape: Any = UNKNOWN
        outputs: Any = UNKNOWN
        condition: Any = UNKNOWN
        if UNKNOWN not in (data, conditioner, autoencoder):
            codec = codec_of(autoencoder, data.shape)
            shape, condition = [*codec.shape], shape_node(conditioner, codec.factor)
            outputs = shape[0] * (2 if learned else 1)
        return {"network": {"shape": shape, "outputs": outputs, "condition": condition}}

    def needs(self) -> Iterator[tuple[str, Callable[[], object]]]:
        """The weights of a trained autoencoder, and those to start from."""
        if isinstance(self.autoencoder, Trained):
            yield "autoencoder", self.autoencoder.fetch
        if self.initial is not None:
            yield "from", self.initial.check

    def module(self, config: dict[str, Any], rollbacks: int = 0) -> "GenerativeModule":
        """The module of ``unnoise.training.diffusion``."""
        from unnoise.training.diffusion import DiffusionModule

        return DiffusionModule(self, config, rollbacks)


@dataclass(frozen=True, kw_only=True)
class AdversarialRecipe(Recipe):
    """A generator, which is ``network``, and the discriminator that it learns from."""

    network: Generator
    discriminator: Discriminator
    gamma: Annotated[float, Field(ge=0)]
    sampler: Annotated[LatentSampler, Role.SHOWN]
    condition_dropout: Literal[0]
    pairing: Literal["relativistic", "plain"] = "relativistic"

    @classmethod
    def handed(cls, config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """Both networks get the shape of the pictures and what conditions them."""
        both = shape_and_condition(config)
        return {"network": both, "discriminator": both}

    def module(self, config: dict[str, Any], rollbacks: int = 0) -> "GenerativeModule":
        """The module of ``unnoise.training.adversarial``."""
        from unnoise.training.adversarial import AdversarialModule

        return AdversarialModule(self, config, rollbacks)


@dataclass(frozen=True, kw_only=True)
class AutoencoderRecipe(Recipe):
    """An autoencoder, which is ``network``, and what it is trained by; see its module.

    ``extractor`` is what the ``perceptual`` distance sees by: auto is the data set's own.
    """

    network: ConvolutionalAutoencoder
    sampler: Annotated[Reconstruction, Role.SHOWN]
    perceptual: Annotated[float, Field(ge=0)]
    extractor: str
    discriminator: PatchDiscriminator | None
    discriminator_start: Annotated[int, Field(ge=0)]
    discriminator_weight: Annotated[float, Field(ge=0)]
    conditioning: None
    condition_dropout: Literal[0]
    equivariance: Share = 0.0

    rules: ClassVar[tuple[Rule, ...]] = (*SHARED, *AUTOENCODER)

    @classmethod
    def handed(cls, config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """The autoencoder gets the pictures' channels, the discriminator their shape."""
        data = config["data"]
        shape = data if data is UNKNOWN else [*data.shape]
        colours = data if data is UNKNOWN else data.shape[0]
        return {"network": {"colours": colours}, "discriminator": {"shape": shape}}

    def needs(self) -> Iterator[tuple[str, Callable[[], object]]]:
        """The extractor of the perceptual distance, if that counts."""
        if self.perceptual:
            from unnoise.evaluation.perceptual import own_extractor

            yield "extractor", partial(own_extractor, self.extractor, self.data)

    def module(self, config: dict[str, Any], rollbacks: int = 0) -> "GenerativeModule":
        """The module of ``unnoise.training.autoencoder``."""
        from unnoise.training.autoencoder import AutoencoderModule

        return AutoencoderModule(self, config, rollbacks)


def completed(
    recipe: type[Recipe], config: dict[str, Any], objects: Mapping[str, Any]
) -> dict[str, Any]:
    """The config of a run with all that its networks are handed, as checkpoints hold it.

    ``objects`` holds the built ``givers``.
    """
    more = recipe.handed(config | {key: objects[key] for key in recipe.givers})
    nodes = {key: config[key] for key in more if isinstance(config.get(key), dict)}
    return config | {key: node | more[key] for key, node in nodes.items()}


def shape_and_condition(config: Mapping[str, Any]) -> dict[str, Any]:
    """Those that a network of pixels is handed."""
    data, conditioner = config["data"], config["conditioning"]
    return {
        "shape": data if data is UNKNOWN else [*data.shape],
        "condition": conditioner if conditioner is UNKNOWN else shape_node(conditioner),
    }


def shape_node(conditioner: Conditioner | None, factor: int = 1) -> dict[str, Any]:
    """The node of what a conditioner gives, with factor × factor pixels at each place."""
    shape = ConditionShape() if conditioner is None else conditioner.shape
    shape = replace(shape, spatial=shape.spatial * factor**2)
    return {"_target_": "unnoise.networks.conditioning.ConditionShape", **asdict(shape)}
