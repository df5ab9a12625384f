"""Pictures that were measured: drawn from p(x0 | y), y = A·x0 + noise, by a model of x0 alone."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor

from unnoise.config.numbers import Count, Positive
from unnoise.diffusion.denoiser import Denoise, Denoised
from unnoise.diffusion.editing import Edit, in_turn
from unnoise.diffusion.levels import NoiseLevel, match
from unnoise.diffusion.noise import Noise
from unnoise.diffusion.samplers import Consistency, Sampler, Watch
from unnoise.diffusion.schedules import NoiseSchedule


class Measurement(ABC):
    """A linear map A of pictures (B, C, H, W), each channel alike."""

    @abstractmethod
    def __call__(self, x: Float[Tensor, "B C H W"]) -> Tensor:
        """A·x, (B, C, h, w)."""

    @abstractmethod
    def back(self, y: Float[Tensor, "B C h w"]) -> Tensor:
        """Aᵀ·y, (B, C, H, W)."""

    @abstractmethod
    def solved(self, y: Float[Tensor, "B C h w"], signal: Tensor, noise: float) -> Tensor:
        """(signal·A·Aᵀ + noise·I)⁻¹·y, signal (B,): the inverse covariance of A·x + noise."""


class Masked(Measurement):
    """The picture where ``known`` (1, 1, H, W) is True, and 0 elsewhere."""

    def __init__(self, known: Tensor) -> None:
        self.known = known

    def __call__(self, x: Float[Tensor, "B C H W"]) -> Tensor:
        """x where it is known."""
        return x * self.known.to(x)

    def back(self, y: Float[Tensor, "B C h w"]) -> Tensor:
        """A is symmetric."""
        return self(y)

    def solved(self, y: Float[Tensor, "B C h w"], signal: Tensor, noise: float) -> Tensor:
        """A·Aᵀ = A."""
        return y / (match(signal, y) * self.known.to(y) + noise)


class Separable(Measurement):
    """Rows and columns are mapped one after the other: y = V·x·Hᵀ, V (h, H) and H (w, W)."""

    def __init__(self, vertical: Tensor, horizontal: Tensor) -> None:
        self.maps = vertical.double(), horizontal.double()
        self.spectra = [torch.linalg.eigh(each @ each.T) for each in self.maps]

    def __call__(self, x: Float[Tensor, "B C H W"]) -> Tensor:
        """V·x·Hᵀ."""
        vertical, horizontal = (each.to(x) for each in self.maps)
        seen: Tensor = vertical @ x @ horizontal.T
        return seen

    def back(self, y: Float[Tensor, "B C h w"]) -> Tensor:
        """Vᵀ·y·H."""
        vertical, horizontal = (each.to(y) for each in self.maps)
        return vertical.T @ y @ horizontal

    def solved(self, y: Float[Tensor, "B C h w"], signal: Tensor, noise: float) -> Tensor:
        """In the eigenvectors of V·Vᵀ and H·Hᵀ the matrix is diagonal."""
        (down, V), (along, H) = ((values.to(y), vectors.to(y)) for values, vectors in self.spectra)
        powers = down[:, None] * along
        solved: Tensor = V @ ((V.T @ y @ H) / (match(signal, y) * powers + noise)) @ H.T
        return solved


def blur(height: Count, width: Count, deviation: Positive) -> Separable:
    """A Gaussian blur of a standard deviation in pixels; at the border its weights sum to 1 too."""
    return Separable(*(_gaussian(n, deviation) for n in (height, width)))


def averages(height: Count, width: Count, factor: Count) -> Separable:
    """The mean of each square of ``factor``² pixels.

    Raises:
        ValueError: the squares do not fill the picture.
    """
    if height % factor or width % factor:
        raise ValueError(f"factor {factor} does not divide pictures of {height} × {width} pixels")
    rows = (torch.eye(n // factor).repeat_interleave(factor, 1) for n in (height, width))
    return Separable(*(each / factor for each in rows))


def _gaussian(n: int, deviation: float) -> Tensor:
    """Weights (n, n) of each pixel in each blurred one."""
    place = torch.arange(n, dtype=torch.float64)
    return (-((place[:, None] - place) ** 2) / (2 * deviation**2)).softmax(1)


class Posterior(Edit):
    """Draw pictures that would have been measured as y, by the score of p(y | x_t).

    p(x0 | x_t) is taken for N(x̂0, r²·I), so that p(y | x_t) = N(A·x̂0, r²·A·Aᵀ + noise²·I), and
    ∇ ln p(y | x_t) = (∂x̂0/∂x_t)ᵀ·Aᵀ·(r²·A·Aᵀ + noise²·I)⁻¹·(y − A·x̂0) (Song et al. 2023,
    "Pseudoinverse-guided diffusion models for inverse problems", eq. 8), through which x̂0 becomes
    x̂0 + (sigma²/alpha)·∇ ln p(y | x_t). r² = spread²·sigma²/(alpha²·spread² + sigma²) is exact for
    independent pixels of that standard deviation, and then so is the posterior; of pictures it
    is an approximation. ``spread`` 0 is that of diffusion posterior sampling (Chung et al. 2023,
    eq. 12 and 16), p(y | x_t) ≈ p(y | x̂0), which takes little noise for a contradiction. Where
    alpha = 0, x_t is pure noise and y is left out.

    Args:
        measured: y (N, C, h, w), of pictures in [−1, 1].
        measurement: A.
        noise: standard deviation of the measurement's noise.
        spread: standard deviation of the data.
    """

    def __init__(
        self, measured: Tensor, measurement: Measurement, noise: Positive, spread: float = 1.0
    ) -> None:
        self.measured, self.measurement = measured, measurement
        self.noise, self.spread = noise, spread
        self.shape = tuple(measurement.back(measured[:1]).shape[1:])

    def __call__(
        self,
        sampler: Sampler,
        denoise: Denoise,
        schedule: NoiseSchedule,
        noise: Noise,
        watch: Watch | None = None,
    ) -> Tensor:
        """One sample for each id of ``noise``: (B, C, H, W).

        Raises:
            ValueError: the sampler chooses its own levels, or takes a sample for the mean.
        """
        if isinstance(sampler.stepper, Consistency):
            raise ValueError(
                "a measurement needs the mean of x0, which a consistency model does not estimate: "
                "use a diffusion model, with another sampler"
            )
        guided = self.guided(denoise, in_turn(self.measured, noise.ids))
        return super().__call__(sampler, guided, schedule, noise, watch)

    def guided(self, denoise: Denoise, measured: Tensor) -> Denoise:
        """The estimates given y (B, C, h, w), which have its score added."""

        def given(x_t: Tensor, level: NoiseLevel) -> Denoised:
            if level.alpha == 0:
                return denoise(x_t, level)
            with torch.inference_mode(False), torch.enable_grad():
                here = NoiseLevel(*(value.clone() for value in level))
                x, y = x_t.clone().requires_grad_(), measured.to(x_t).clone()
                found = denoise(x, here)
                pull = self.measurement.back(self._weighed(y - self.measurement(found.x0), here))
                slope = torch.autograd.grad(found.x0, x, pull)[0]
            alpha, sigma = level.like(x_t)
            x0, eps, fraction = (None if part is None else part.detach() for part in found)
            assert x0 is not None
            assert eps is not None
            return Denoised(x0 + sigma**2 / alpha * slope, eps - sigma * slope, fraction)

        return given

    def _weighed(self, off: Tensor, level: NoiseLevel) -> Tensor:
        """(r²·A·Aᵀ + noise²·I)⁻¹·(y − A·x̂0)."""
        signal, noise = (self.spread * level.alpha) ** 2, level.sigma**2
        variance = self.spread**2 * noise / (signal + noise)
        return self.measurement.solved(off.detach(), variance, self.noise**2)
