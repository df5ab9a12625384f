"""An autoencoder as a model that makes pictures: its sample n is picture n, encoded and decoded.

So whatever draws, shows or measures samples does so with reconstructions. The losses are those of
Esser et al. 2021 (VQGAN), which Rombach et al. 2022 train their first stages by.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from unnoise.diffusion.levels import CLEAN
from unnoise.diffusion.noise import Noise
from unnoise.diffusion.samplers import Watch
from unnoise.models.base import GenerativeModel
from unnoise.models.codec import PixelCodec
from unnoise.networks.autoencoders import ConvolutionalAutoencoder, KLAutoencoder, Reconstruction
from unnoise.networks.conditioning import Condition, Conditioner, read

MOST_ADAPTIVE_WEIGHT = 1e4
ENLARGED = 4  # times, a difference


class Original(Conditioner):
    """The picture itself, as what a reconstruction is made from."""

    reads = ("image",)

    def forward(self, batch: Mapping[str, Any], keep: Tensor) -> Condition:
        """Nothing: no network is conditioned."""
        return Condition()

    def picture(self, batch: Mapping[str, Any]) -> Tensor:
        """As it is."""
        original: Tensor = read(batch, "image")
        return original


class AutoencoderModel(GenerativeModel):
    """Reconstructs pictures; by default those of the validation split, from the first."""

    networks: ClassVar[dict[str, str]] = {"network": "autoencoder."}
    reconstructs = True

    def __init__(self, autoencoder: ConvolutionalAutoencoder, shape: tuple[int, ...]) -> None:
        super().__init__()
        autoencoder.latent_shape(shape)
        self.autoencoder, self.codec, self.conditioner = autoencoder, PixelCodec(shape), Original()

    @classmethod
    def of(cls, parts: Mapping[str, Any], shape: tuple[int, ...]) -> Self:
        """From the network; ValueError if it cannot encode pictures of this shape."""
        return cls(parts["network"], shape)

    @torch.inference_mode()
    def sample(
        self,
        recipe: Reconstruction,
        noise: Noise,
        batch: Mapping[str, Any] | None = None,
        watch: Watch | None = None,
    ) -> Tensor:
        """The reconstruction of each "image" of the batch; ValueError if there are none."""
        self.check_recipe(recipe)
        x = self.codec.encode(read(batch or {}, "image"))
        signal, _ = self.autoencoder(x, noise if recipe.drawn else None)
        if watch is not None:
            watch(signal, CLEAN)
        return self.codec.decode(signal)

    def check_recipe(self, recipe: Reconstruction) -> None:
        """ValueError if it is not an autoencoder's, or draws latents that have no distribution."""
        if not isinstance(recipe, Reconstruction):
            raise ValueError(
                "an autoencoder draws with sampler=reconstruction, "
                f"not with {type(recipe).__name__}"
            )
        if recipe.drawn and not isinstance(self.autoencoder, KLAutoencoder):
            raise ValueError("sampler.drawn=true is for latents with a distribution, not for codes")

    def caption(self, recipe: Reconstruction) -> str:
        """What stands beside what."""
        text = f"original, reconstruction, {ENLARGED}·|difference|"
        if not isinstance(self.autoencoder, KLAutoencoder):
            return text
        how = "latents drawn" if recipe.drawn else "latents not drawn, but their means"
        return f"{text}; {how}"

    def difference(self, pixels: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Four times the distance to the original, uint8."""
        original: Tensor = read(batch, "image")
        far = (pixels.short() - original.to(pixels.device).short()).abs()
        return (ENLARGED * far).clamp(max=255).to(torch.uint8)


def adaptive_weight(reconstruction: Tensor, adversarial: Tensor) -> Tensor:
    """|∇ reconstruction| / (|∇ adversarial| + 1e-4), at most 1e4.

    Esser et al. 2021, eq. 7, has 1e-6 and no bound; these numbers are those of its published code.
    Of the gradients of both losses at the decoder's last layer, of any shape: (). It makes them
    equally strong there.
    """
    weight: Tensor = reconstruction.norm() / (adversarial.norm() + 1e-4)
    return weight.clamp(max=MOST_ADAPTIVE_WEIGHT)


def hinge(of_real: Tensor, of_fake: Tensor) -> Tensor:
    """½·(mean max(0, 1 − real) + mean max(0, 1 + fake)) over the scores (B, …) of each pair: (B,).

    The discriminator's loss (Lim & Ye 2017); the autoencoder's is −mean fake.
    """
    real, fake = F.relu(1 - of_real).flatten(1), F.relu(1 + of_fake).flatten(1)
    return 0.5 * (real.mean(1) + fake.mean(1))
