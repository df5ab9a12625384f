"""Models that draw from a latent in one call, and those of them whose likelihood is known."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from unnoise.diffusion.levels import CLEAN
from unnoise.diffusion.noise import Noise
from unnoise.diffusion.samplers import Watch
from unnoise.models.base import GenerativeModel, a
from unnoise.networks.adversarial import LatentSampler


class LatentModel(GenerativeModel):
    """Makes pictures of latents z ~ N(0, I) of ``latent_shape``."""

    latent_shape: tuple[int, ...]

    @abstractmethod
    def generate(self, z: Tensor, vector: Tensor | None = None) -> Tensor:
        """Latents (B, *latent_shape), and the condition (B, D) if there is one, to signals."""

    def latents(self, noise: Noise) -> Tensor:
        """z of each id of ``noise``, (B, *latent_shape)."""
        return noise.normal("z", self.latent_shape)

    def vector(self, batch: Mapping[str, Any] | None, ids: Tensor) -> Tensor | None:
        """The condition (B, D) of what the conditioner reads of a batch, or of its examples.

        Raises:
            ValueError: the batch lacks something, or there are no examples.
        """
        if self.conditioner is None:
            return None
        found = self.conditioner.examples(ids) if batch is None else batch
        if found is None:
            keys = " and ".join(self.conditioner.reads)
            raise ValueError(f"the model is conditional: give it a batch with {keys}")
        keep = torch.ones_like(ids, dtype=torch.bool)
        vector: Tensor | None = self.conditioner(found, keep).vector
        return vector

    @torch.inference_mode()
    def sample(
        self,
        recipe: LatentSampler,
        noise: Noise,
        batch: Mapping[str, Any] | None = None,
        watch: Watch | None = None,
    ) -> Tensor:
        """One picture for each id of ``noise``, in one call; ValueError for another recipe."""
        self.check_recipe(recipe)
        signal = self.generate(recipe.scale * self.latents(noise), self.vector(batch, noise.ids))
        if watch is not None:
            watch(signal, CLEAN)
        return self.codec.decode(signal)

    def check_recipe(self, recipe: Any) -> None:
        """ValueError if it is another family's."""
        if not isinstance(recipe, LatentSampler):
            given = type(recipe).__name__
            raise ValueError(f"{a(self)} draws with sampler=latent, not with {given}")


class LikelihoodModel(LatentModel):
    """A model with bits/dim of pictures, or a bound on them, which it is trained by.

    They are a sum of ``terms``.
    """

    terms: ClassVar[tuple[str, ...]]

    @abstractmethod
    def bits(self, batch: Mapping[str, Any], noise: Noise) -> dict[str, Tensor]:
        """The terms of −log2 p of the pictures of a batch with "image", in bits/dim, each (B,)."""

    def loss(self, batch: Mapping[str, Any], noise: Noise) -> tuple[Tensor, dict[str, Tensor]]:
        """What training makes small (B,), and terms to log; here their sum."""
        terms = self.bits(batch, noise)
        return torch.stack([*terms.values()]).sum(0), terms
