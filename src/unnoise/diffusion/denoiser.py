"""The denoiser: a network and what its output means.

Every prediction kind is three numbers at a level, x0 = skip·x_t + out·F(inp·x_t, t), so that
objectives and samplers see x0 and eps and never ask which kind it was.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from unnoise.diffusion.noise_level import NoiseLevel, match


class Denoised(NamedTuple):
    """A guess of the two parts of x_t = alpha·x0 + sigma·eps, each (B, …)."""

    x0: Tensor
    eps: Tensor


Denoise = Callable[[Tensor, NoiseLevel], Denoised]
"""(x_t, level) to the guess, condition and guidance already bound: what a sampler sees."""


class Prediction(ABC):
    """What the network's output stands for."""

    @abstractmethod
    def coefficients(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(skip, out, inp) of x0 = skip·x_t + out·F(inp·x_t, t), shaped like alpha."""


class EpsilonPrediction(Prediction):
    """F is the noise: x0 = (x_t − sigma·F)/alpha (DDPM eq. 11)."""

    def coefficients(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(1/alpha, −sigma/alpha, 1)."""
        return 1 / alpha, -sigma / alpha, torch.ones_like(alpha)


class X0Prediction(Prediction):
    """F is the picture: x0 = F."""

    def coefficients(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(0, 1, 1)."""
        return torch.zeros_like(alpha), torch.ones_like(alpha), torch.ones_like(alpha)


class VPrediction(Prediction):
    """F is the velocity alpha·eps − sigma·x0 (Salimans & Ho 2022, §4)."""

    def coefficients(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(alpha/power, −sigma/power, 1) with power = alpha² + sigma²."""
        power = alpha**2 + sigma**2
        return alpha / power, -sigma / power, torch.ones_like(alpha)


class Denoiser(nn.Module):
    """Guesses picture and noise of x_t, by a network F(x, t, condition) and a prediction kind."""

    def __init__(self, network: nn.Module, prediction: Prediction) -> None:
        super().__init__()
        self.network, self.prediction = network, prediction

    def forward(
        self, x_t: Float[Tensor, "B *shape"], level: NoiseLevel, condition: Any = None
    ) -> Denoised:
        """The guess, in float32 at least, at level () or (B,); condition goes to the network.

        x0 = skip·x_t + out·F and, from x_t = alpha·x0 + sigma·eps, eps = skip'·x_t + out'·F.
        """
        alpha, sigma = level.alpha, level.sigma
        skip, out, inp = self.prediction.coefficients(alpha, sigma)
        skip_eps, out_eps = (1 - alpha * skip) / sigma, -alpha * out / sigma
        t = level.t.to(x_t).expand(len(x_t))
        output = self.network(match(inp, x_t) * x_t, t, condition).to(x_t)
        return Denoised(
            x0=match(skip, x_t) * x_t + match(out, x_t) * output,
            eps=match(skip_eps, x_t) * x_t + match(out_eps, x_t) * output,
        )


class Clip:
    """Threshold of a guessed picture: clamp to [−1, 1] (DDPM's published sampler)."""

    def __call__(self, x0: Tensor) -> Tensor:
        """x0 (B, …), clamped."""
        return x0.clamp(-1, 1)


class DynamicThreshold:
    """Threshold of a guessed picture: clamp to its own quantile and rescale to [−1, 1].

    s = max(1, quantile of |x0|), x0 → clamp(x0, −s, s)/s (Saharia et al. 2022, Imagen, §2.3).
    """

    def __init__(self, quantile: Annotated[float, Field(gt=0, le=1)] = 0.995) -> None:
        self.quantile = quantile

    def __call__(self, x0: Tensor) -> Tensor:
        """x0 (B, …), each picture by its own s."""
        s = torch.quantile(x0.flatten(1).abs().float(), self.quantile, dim=1).clamp(min=1)
        s = match(s, x0)
        return x0.clamp(-s, s) / s


Threshold = Clip | DynamicThreshold


def thresholded(denoise: Denoise, threshold: Threshold) -> Denoise:
    """The same guess with its picture thresholded, and eps what then explains x_t."""

    def limited(x_t: Tensor, level: NoiseLevel) -> Denoised:
        x0 = threshold(denoise(x_t, level).x0)
        alpha, sigma = level.like(x_t)
        return Denoised(x0, (x_t - alpha * x0) / sigma)

    return limited
