"""The denoiser: a network and what its output means.

Every kind of prediction is three numbers at a level, x0 = skip·x_t + out·F(inp·x_t, t), so
objectives and samplers work with x0 and eps, whatever the network predicts.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from unnoise.diffusion.levels import NoiseLevel, match


class Denoised(NamedTuple):
    """Estimates of x0 and eps in x_t = alpha·x0 + sigma·eps, each (B, …).

    ``variance_fraction`` (B, …) is the learned variance of a reverse step: 0 is β̃ and 1 is β, on a
    logarithmic scale (Nichol & Dhariwal 2021, eq. 15). None if the network does not learn it.
    """

    x0: Tensor
    eps: Tensor
    variance_fraction: Tensor | None = None

    def rows(self, these: slice) -> "Denoised":
        """The estimates for some of the samples."""
        fraction = self.variance_fraction
        return Denoised(
            self.x0[these], self.eps[these], None if fraction is None else fraction[these]
        )


Denoise = Callable[[Tensor, NoiseLevel], Denoised]
"""(x_t, level) to estimates, with condition and guidance bound: what a sampler sees."""


class Prediction(ABC):
    """What the network's output stands for."""

    @abstractmethod
    def coefficients(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(skip, out, inp) of x0 = skip·x_t + out·F(inp·x_t, t), shaped like alpha."""


def unit_power(alpha: Tensor, sigma: Tensor) -> Tensor:
    """1/√(alpha² + sigma²), which scales x_t of unit-variance data to unit variance."""
    return (alpha**2 + sigma**2).rsqrt()


class EpsilonPrediction(Prediction):
    """F is the noise: x0 = (x_t − sigma·F)/alpha (DDPM eq. 11). Undefined where alpha is 0."""

    def coefficients(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(1/alpha, −sigma/alpha, 1/√(alpha² + sigma²))."""
        return 1 / alpha, -sigma / alpha, unit_power(alpha, sigma)


class X0Prediction(Prediction):
    """F is the clean sample: x0 = F."""

    def coefficients(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(0, 1, 1/√(alpha² + sigma²))."""
        return torch.zeros_like(alpha), torch.ones_like(alpha), unit_power(alpha, sigma)


class VPrediction(Prediction):
    """F is the velocity alpha·eps − sigma·x0 (Salimans & Ho 2022, §4)."""

    def coefficients(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(alpha/power, −sigma/power, 1/√power) with power = alpha² + sigma²."""
        power = alpha**2 + sigma**2
        return alpha / power, -sigma / power, unit_power(alpha, sigma)


class FlowPrediction(Prediction):
    """F is the velocity eps − x0 = dx_t/dt of the straight path alpha = 1 − t, sigma = t.

    Source: Lipman et al. 2023, "Flow matching for generative modeling", with time reversed.
    """

    def coefficients(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(1, −sigma, 1)/(alpha + sigma); on the straight path alpha + sigma = 1."""
        whole = alpha + sigma
        return 1 / whole, -sigma / whole, 1 / whole


class EDMPrediction(Prediction):
    """Input and target of F have unit variance at every level (Karras et al. 2022, Table 1).

    Written for x_t = alpha·x0 + sigma·eps; in the paper alpha is 1.
    """

    def __init__(self, sigma_data: Annotated[float, Field(gt=0)] = 0.5) -> None:
        self.sigma_data = sigma_data

    def coefficients(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(σ_d²·alpha/r², σ_d·sigma/r, 1/r) with r² = sigma² + alpha²·σ_d²."""
        r = (sigma**2 + alpha**2 * self.sigma_data**2).sqrt()
        return self.sigma_data**2 * alpha / r**2, self.sigma_data * sigma / r, 1 / r


class Denoiser(nn.Module):
    """Estimates x0 and eps from x_t, with a network F(x, t, condition) and a kind of prediction.

    With ``learned_variance`` the network has twice the output channels: F, and 2·fraction − 1.
    """

    def __init__(
        self, network: nn.Module, prediction: Prediction, learned_variance: bool = False
    ) -> None:
        super().__init__()
        self.network, self.prediction = network, prediction
        self.learned_variance = learned_variance

    def forward(
        self, x_t: Float[Tensor, "B *shape"], level: NoiseLevel, condition: Any = None
    ) -> Denoised:
        """Estimates in the dtype of x_t, at level () or (B,); condition goes to the network.

        x0 = skip·x_t + out·F and, from x_t = alpha·x0 + sigma·eps, eps = skip'·x_t + out'·F.
        """
        alpha, sigma = level.alpha, level.sigma
        skip, out, inp = self.prediction.coefficients(alpha, sigma)
        skip_eps, out_eps = (1 - alpha * skip) / sigma, -alpha * out / sigma
        t = level.t.to(x_t).expand(len(x_t))
        output = self.network(match(inp, x_t) * x_t, t, condition).to(x_t)
        fraction = None
        if self.learned_variance:
            output, spread = output.chunk(2, dim=1)
            fraction = (spread + 1) / 2
        return Denoised(
            x0=match(skip, x_t) * x_t + match(out, x_t) * output,
            eps=match(skip_eps, x_t) * x_t + match(out_eps, x_t) * output,
            variance_fraction=fraction,
        )


class Clip:
    """Threshold for estimates of x0: clamp to [−1, 1] (DDPM's published sampler)."""

    def __call__(self, x0: Tensor) -> Tensor:
        """x0 (B, …), clamped."""
        return x0.clamp(-1, 1)


class DynamicThreshold:
    """Threshold for estimates of x0: clamp to a quantile, then rescale to [−1, 1].

    s = max(1, quantile of |x0|), x0 → clamp(x0, −s, s)/s (Saharia et al. 2022, Imagen, §2.3).
    """

    def __init__(self, quantile: Annotated[float, Field(gt=0, le=1)] = 0.995) -> None:
        self.quantile = quantile

    def __call__(self, x0: Tensor) -> Tensor:
        """x0 (B, …), each sample by its own s."""
        s = torch.quantile(x0.flatten(1).abs().float(), self.quantile, dim=1).clamp(min=1)
        s = match(s, x0)
        return x0.clamp(-s, s) / s


Threshold = Clip | DynamicThreshold


def thresholded(denoise: Denoise, threshold: Threshold) -> Denoise:
    """The denoiser with x0 thresholded, and eps = (x_t − alpha·x0)/sigma."""

    def limited(x_t: Tensor, level: NoiseLevel) -> Denoised:
        denoised = denoise(x_t, level)
        x0 = threshold(denoised.x0)
        alpha, sigma = level.like(x_t)
        return Denoised(x0, (x_t - alpha * x0) / sigma, denoised.variance_fraction)

    return limited
