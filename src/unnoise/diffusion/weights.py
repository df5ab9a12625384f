"""Weights: how much the squared error of x0 counts at each noise level.

All are functions w(SNR) of SNR = alpha²/sigma² that multiply ‖x0 − x̂0‖², whatever the network
predicts. As x̂0 = skip·x_t + out·F, the error of its output F has the weight w·out². So weights
from different papers can be compared, and each works with any prediction.
"""

from abc import ABC, abstractmethod
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor


class Weight(ABC):
    """w(SNR)."""

    @abstractmethod
    def __call__(self, snr: Tensor) -> Tensor:
        """The weight at SNR ≥ 0, float64 of any shape."""


class X0Weight(Weight):
    """1: the error of x0 counts the same at every level."""

    def __call__(self, snr: Tensor) -> Tensor:
        """1."""
        return torch.ones_like(snr)


class VWeight(Weight):
    """SNR + 1: the error of v counts the same, if alpha² + sigma² = 1 (Salimans & Ho 2022, §4)."""

    def __call__(self, snr: Tensor) -> Tensor:
        """1/out² of VPrediction."""
        return snr + 1


class VelocityWeight(Weight):
    """(√SNR + 1)²: the error of the velocity eps − x0 counts the same, on flow matching's path.

    With times uniform on that path this is the loss of Lipman et al. 2023, eq. 23.
    """

    def __call__(self, snr: Tensor) -> Tensor:
        """1/out² of FlowPrediction."""
        return (snr.sqrt() + 1) ** 2


class EDMWeight(Weight):
    """SNR + 1/σ_d²: the error of F counts the same in EDM (Karras et al. 2022, Table 1, λ(σ))."""

    def __init__(self, sigma_data: Annotated[float, Field(gt=0)] = 0.5) -> None:
        self.sigma_data = sigma_data

    def __call__(self, snr: Tensor) -> Tensor:
        """1/out² of EDMPrediction."""
        return snr + 1 / self.sigma_data**2


class MinSNR(Weight):
    """min(SNR, γ): no level counts more than γ times the error of x0 (Hang et al. 2023,
    "Efficient diffusion training via Min-SNR weighting strategy").

    γ = ∞ would be L_simple. Pure noise (SNR = 0) has weight 0.
    """

    def __init__(self, gamma: Annotated[float, Field(gt=0)] = 5.0) -> None:
        self.gamma = gamma

    def __call__(self, snr: Tensor) -> Tensor:
        """min(SNR, γ)."""
        return snr.clamp(max=self.gamma)


class P2(Weight):
    """SNR/(k + SNR)^γ: less where only imperceptible detail is missing (Choi et al. 2022,
    "Perception prioritized training of diffusion models").

    γ = 0 is L_simple.
    """

    def __init__(
        self, k: Annotated[float, Field(gt=0)] = 1.0, gamma: Annotated[float, Field(ge=0)] = 1.0
    ) -> None:
        self.k, self.gamma = k, gamma

    def __call__(self, snr: Tensor) -> Tensor:
        """L_simple's SNR over (k + SNR)^γ."""
        return snr / (self.k + snr) ** self.gamma
