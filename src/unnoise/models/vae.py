"""The variational autoencoder (Kingma & Welling 2014), with a likelihood of 256 levels."""

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, Self, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unnoise.diffusion.likelihood import bits_per_dim, level_log_probability
from unnoise.diffusion.noise import Noise
from unnoise.diffusion.schedules import precise
from unnoise.models.codec import PixelCodec
from unnoise.models.latent import LikelihoodModel
from unnoise.networks.conditioning import Conditioner
from unnoise.networks.variational import VariationalNetwork

Likelihood = Literal["logistic", "normal"]
Scale = Literal["channel", "element"]
LOG_CDF: dict[Likelihood, Callable[[Tensor], Tensor]] = {
    "logistic": F.logsigmoid,
    "normal": torch.special.log_ndtr,
}
LOG_SCALE = -7.0, 3.0  # the least, 0.12 levels, is that of PixelCNN++ (Salimans et al. 2017)


class VAE(LikelihoodModel):
    """p(x) = ∫ p(x | z) p(z) dz, z ~ N(0, I), with an encoder q(z | x).

    p(x | z) is, of each number on its own, the mass that a logistic or normal distribution has at
    its level of 256: the mean is the decoder's. The scale is learned: one of each ``channel``
    (σ-VAE, Rybkin et al. 2021) or one of each ``element``, which the decoder gives too. What is
    drawn is the mean, not a draw of p(x | z).

    ``beta`` weighs the divergence in training (β-VAE, Higgins et al. 2017); at 1 the loss is the
    bound on −log2 p(x).
    """

    networks: ClassVar[dict[str, str]] = {"network": "autoencoder.", "conditioning": "conditioner."}
    parts: ClassVar[tuple[str, ...]] = ("beta", "likelihood", "scale")
    terms: ClassVar[tuple[str, ...]] = ("reconstruction", "kl")
    autoencoder: Any

    def __init__(
        self,
        network: VariationalNetwork,
        conditioner: Conditioner | None = None,
        beta: float = 1.0,
        likelihood: Likelihood = "logistic",
        scale: Scale = "channel",
    ) -> None:
        super().__init__()
        self.autoencoder, self.conditioner, self.beta = network, conditioner, beta
        self.codec, self.latent_shape = PixelCodec(network.shape), (network.latent,)
        self.log_cdf = LOG_CDF[likelihood]
        shared = scale == "channel"
        self.log_scale = (
            nn.Parameter(torch.full((network.shape[0], 1, 1), -1.0)) if shared else None
        )

    @classmethod
    def of(cls, parts: Mapping[str, Any], shape: tuple[int, ...]) -> Self:
        """From the parts; ValueError if the network is for other pictures, or other outputs."""
        for key, kind in (("likelihood", Likelihood), ("scale", Scale)):
            if parts[key] not in get_args(kind):
                raise ValueError(f"{key} is {parts[key]!r}, not {' or '.join(get_args(kind))}")
        network = parts["network"]
        if (network.shape, network.outputs) != (shape, outputs(shape, parts["scale"])):
            made = f"{network.shape} with {network.outputs} outputs"
            raise ValueError(f"the network is for {made}, not for {shape}")
        return cls(network, parts["conditioning"], *(parts[key] for key in cls.parts))

    def generate(self, z: Tensor, vector: Tensor | None = None) -> Tensor:
        """The mean of p(x | z): (B, Z) to (B, C, H, W)."""
        return self._decoded(z, vector)[0]

    def bits(self, batch: Mapping[str, Any], noise: Noise) -> dict[str, Tensor]:
        """Of the bound: −log2 p(x | z) for one z ~ q(z | x), and the divergence from N(0, I)."""
        x, vector = self.codec.encode(batch["image"]), self.vector(batch, noise.ids)
        posterior = self.autoencoder.posterior(x, vector)
        mean, log_scale = (precise(each) for each in self._decoded(posterior.draw(noise), vector))
        scale = log_scale.clamp(*LOG_SCALE).exp()
        nats = -level_log_probability(precise(x), mean, scale, self.log_cdf)
        kl = posterior.kl / (x[0].numel() * math.log(2))
        return dict(zip(self.terms, (bits_per_dim(nats).to(kl), kl), strict=True))

    def loss(self, batch: Mapping[str, Any], noise: Noise) -> tuple[Tensor, dict[str, Tensor]]:
        """The bound, with β times the divergence."""
        terms = self.bits(batch, noise)
        return terms["reconstruction"] + self.beta * terms["kl"], terms

    def _decoded(self, z: Tensor, vector: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean and ln scale of each number, float32."""
        out = self.autoencoder(z, vector).float()
        if self.log_scale is None:
            mean, log_scale = out.chunk(2, dim=1)
            return mean, log_scale
        return out, self.log_scale


def outputs(shape: tuple[int, ...], scale: Scale) -> int:
    """Channels of the decoder's output."""
    return shape[0] * (1 if scale == "channel" else 2)
