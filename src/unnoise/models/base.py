"""What evaluation, callbacks, commands and the API know of a generative family."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor, nn

from unnoise.diffusion.levels import NoiseLevel
from unnoise.diffusion.noise import Noise
from unnoise.diffusion.samplers import Watch
from unnoise.models.codec import Codec
from unnoise.networks.conditioning import Conditioner


class Classifier(Protocol):
    """A classifier of noisy pictures, to guide by; ``names`` are those of its classes."""

    @property
    def names(self) -> Sequence[str]:
        """One for each class."""
        ...

    def log_probability(self, x_t: Tensor, level: NoiseLevel, labels: Tensor) -> Tensor:
        """ln p(y | x_t) of each picture's own label (B,): (B,), differentiable in x_t."""
        ...


def a(thing: object) -> str:
    """What it is, as in "a GAN" or "an AutoencoderModel"."""
    kind = type(thing).__name__
    return f"an {kind}" if kind[0] in "AEIOU" else f"a {kind}"


class GenerativeModel(nn.Module, ABC):
    """Makes data, pictures for instance, under the conditions of ``conditioner`` if it has one.

    Inside the model they are the signal of its ``codec``.

    ``networks`` says which keys of a config are its networks, and under which prefix of its state
    their weights are; ``parts`` are the other keys that it is built from. One that
    ``reconstructs`` makes no second sample of the same picture.
    """

    networks: ClassVar[dict[str, str]]
    parts: ClassVar[tuple[str, ...]] = ()
    reconstructs: ClassVar[bool] = False
    codec: Codec
    conditioner: Conditioner | None

    @classmethod
    @abstractmethod
    def of(cls, parts: Mapping[str, Any], shape: tuple[int, ...]) -> Self:
        """From the built parts of a config (others are ignored), for data of ``shape``."""

    @abstractmethod
    def sample(
        self,
        recipe: Any,
        noise: Noise,
        batch: Mapping[str, Any] | None = None,
        watch: Watch | None = None,
    ) -> Tensor:
        """One uint8 (B, *shape) for each id of ``noise``, drawn by a recipe of the family.

        ``batch`` holds what the conditioner reads; without it, its examples are drawn. ``watch``
        sees the signal after each of the ``steps``.
        """

    @property
    def network(self) -> nn.Module:
        """What ``sample`` evaluates: its calls are the cost of a sample."""
        return self.get_submodule(self.networks["network"].rstrip("."))

    def check_recipe(self, recipe: Any) -> None:
        """ValueError if a recipe is for another family, or needs what the model lacks."""

    def check_guidance(self, scale: float, dropout: float | None = None) -> None:
        """ValueError if guidance of a scale other than 1 has no condition, or no null condition.

        Without ``dropout`` of the condition in training, no null condition was learned.
        """
        if scale != 1 and self.conditioner is None:
            raise ValueError(
                f"guidance {scale:g} needs something to guide by: the model is unconditional, so "
                "give a classifier or a weak model, or leave guidance at 1"
            )
        if scale != 1 and dropout == 0:
            raise ValueError(
                f"guidance {scale:g} needs a null condition, which this run did not learn "
                "(condition_dropout=0): only guidance=1, a weak model or a classifier will do"
            )

    def difference(self, pixels: Tensor, batch: Mapping[str, Any]) -> Tensor | None:
        """How far what was drawn is from what it should be, as pictures, where that is known."""
        return None

    def steps(self, recipe: Any) -> int:
        """How often ``watch`` is called."""
        return 1

    def changed(self, recipe: Any, steps: int | None, guidance: float | None) -> Any:
        """The recipe with other steps or guidance scale, where given; ValueError if it has none."""
        if steps is not None or guidance is not None:
            raise ValueError(f"{a(self)} draws without steps and guidance")
        return recipe

    def caption(self, recipe: Any) -> str:
        """How the recipe draws, in a few words."""
        return f"by {type(recipe).__name__}"

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the data it makes."""
        return self.codec.data_shape

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device
