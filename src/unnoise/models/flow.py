"""A normalizing flow as a model: an exact density of pictures, by a change of variables."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from unnoise.diffusion.likelihood import HALF_A_LEVEL, dequantised
from unnoise.diffusion.noise import Noise
from unnoise.models.codec import PixelCodec
from unnoise.models.latent import LikelihoodModel
from unnoise.networks.conditioning import Conditioner
from unnoise.networks.flows import Flow


class NormalizingFlow(LikelihoodModel):
    """ln p(x) = ln N(z; 0, I) + ln |det ∂z/∂x|, z = f(x) (no flow matching, which is diffusion).

    Bits/dim are those of uniformly dequantised pixels, an upper bound on −log2 of the probability
    of their levels. With ``augmentation`` σ > 0 what is learned is the density of x + σ·ε instead,
    ε ~ N(0, I), and of a sample y the mean of what it was before the noise is drawn:
    y + σ²·∇ ln p(y) (Zhai et al. 2024, §2.3 and 2.4, after Tweedie).
    """

    networks: ClassVar[dict[str, str]] = {"network": "flow.", "conditioning": "conditioner."}
    parts: ClassVar[tuple[str, ...]] = ("augmentation",)
    terms: ClassVar[tuple[str, ...]] = ("prior", "volume")
    flow: Any

    def __init__(
        self, flow: Flow, conditioner: Conditioner | None = None, augmentation: float = 0.0
    ) -> None:
        super().__init__()
        self.flow, self.conditioner, self.augmentation = flow, conditioner, augmentation
        self.codec, self.latent_shape = PixelCodec(flow.shape), flow.shape

    @classmethod
    def of(cls, parts: Mapping[str, Any], shape: tuple[int, ...]) -> Self:
        """From the parts; ValueError if the flow is for pictures of another shape."""
        if parts["network"].shape != shape:
            raise ValueError(f"the flow is for {parts['network'].shape}, not for {shape}")
        return cls(parts["network"], parts["conditioning"], float(parts["augmentation"]))

    def generate(self, z: Tensor, vector: Tensor | None = None) -> Tensor:
        """The signals of z (B, C, H, W), without the noise that was learned with them."""
        y: Tensor = self.flow(z, vector)
        if not self.augmentation:
            return y
        with torch.inference_mode(False), torch.enable_grad():
            y = y.clone().requires_grad_()
            log_density = self._log_density(y, None if vector is None else vector.clone())
            (score,) = torch.autograd.grad(torch.stack(log_density).sum(), y)
        return y.detach() + self.augmentation**2 * score

    def bits(self, batch: Mapping[str, Any], noise: Noise) -> dict[str, Tensor]:
        """Of dequantised pixels: that of z, and of the volume of a level there."""
        x = self.codec.encode(batch["image"])
        return self._bits(dequantised(x, noise), self.vector(batch, noise.ids))

    def loss(self, batch: Mapping[str, Any], noise: Noise) -> tuple[Tensor, dict[str, Tensor]]:
        """Bits/dim, with ``augmentation`` of the pictures with that noise."""
        if not self.augmentation:
            return super().loss(batch, noise)
        x = self.codec.encode(batch["image"])
        y = x + self.augmentation * noise.normal("augmentation", x.shape[1:]).to(x)
        terms = self._bits(y, self.vector(batch, noise.ids))
        return torch.stack([*terms.values()]).sum(0), terms

    def _bits(self, y: Tensor, vector: Tensor | None) -> dict[str, Tensor]:
        base, log_det = self._log_density(y, vector)
        bits = -1 / (y[0].numel() * math.log(2))
        volume = bits * log_det - math.log2(2 * HALF_A_LEVEL)
        return dict(zip(self.terms, (bits * base, volume), strict=True))

    def _log_density(self, y: Tensor, vector: Tensor | None) -> tuple[Tensor, Tensor]:
        """ln N(z; 0, I) and ln |det ∂z/∂y|, both (B,) nats."""
        z, log_det = self.flow.encode(y, vector)
        base = -0.5 * (z.square() + math.log(2 * math.pi)).flatten(1).sum(1)
        return base, log_det
