"""What a run of a family with a likelihood is made of: a VAE or a normalizing flow."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from unnoise.config.problems import UNKNOWN
from unnoise.models.flow import NormalizingFlow
from unnoise.models.vae import VAE, outputs
from unnoise.networks.adversarial import LatentSampler
from unnoise.networks.flows import Flow
from unnoise.networks.variational import VariationalNetwork
from unnoise.runs.identity import Role
from unnoise.training.recipe import Recipe, shape_and_condition

if TYPE_CHECKING:
    from unnoise.training.module import GenerativeModule


@dataclass(frozen=True, kw_only=True)
class VariationalRecipe(Recipe):
    """A VAE, whose encoder and decoder are ``network``; for the other keys see the model."""

    network: VariationalNetwork
    sampler: Annotated[LatentSampler, Role.SHOWN]
    beta: Annotated[float, Field(ge=0)]
    likelihood: Literal["logistic", "normal"]
    scale: Literal["channel", "element"]
    condition_dropout: Literal[0]

    @classmethod
    def handed(cls, config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """The network gets the shape of the pictures, the channels of its output, the condition."""
        data, scale = config["data"], config.get("scale")
        made: dict[str, Any] = {"outputs": UNKNOWN}
        if data is not UNKNOWN and (scale == "channel" or scale == "element"):
            made = {"outputs": outputs(data.shape, scale)}
        return {"network": shape_and_condition(config) | made}

    def module(self, config: dict[str, Any], rollbacks: int = 0) -> "GenerativeModule":
        """The module of ``unnoise.training.likelihood``."""
        from unnoise.training.likelihood import LikelihoodModule

        model = VAE.of(vars(self), self.data.shape)
        return LikelihoodModule(model, self, config, rollbacks)


@dataclass(frozen=True, kw_only=True)
class FlowRecipe(Recipe):
    """A normalizing flow; for ``augmentation`` see the model."""

    network: Flow
    sampler: Annotated[LatentSampler, Role.SHOWN]
    augmentation: Annotated[float, Field(ge=0, lt=1)]
    condition_dropout: Literal[0]
    compile: Literal[False]  # only calls of a network can be, and training does not call it

    @classmethod
    def handed(cls, config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """The network gets the shape of the pictures and what conditions them."""
        return {"network": shape_and_condition(config)}

    def module(self, config: dict[str, Any], rollbacks: int = 0) -> "GenerativeModule":
        """The module of ``unnoise.training.likelihood``."""
        from unnoise.training.likelihood import LikelihoodModule

        model = NormalizingFlow.of(vars(self), self.data.shape)
        return LikelihoodModule(model, self, config, rollbacks)
