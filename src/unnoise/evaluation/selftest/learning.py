"""Learning: a U-Net that learns, and the average of weights in closed form."""

from collections.abc import Callable
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from unnoise.diffusion.denoiser import Denoiser, EpsilonPrediction
from unnoise.diffusion.noise import Noise
from unnoise.diffusion.objectives import SimpleLoss
from unnoise.diffusion.schedules import linear
from unnoise.evaluation.selftest.check import Check, Result, with_float64
from unnoise.networks.unet import UNet

GROUP = "learning"


class Average(Protocol):
    """The moving average of a model's weights."""

    @property
    def model(self) -> nn.Module:
        """A model of the averaged weights."""
        ...

    def update(self, parameters: list[Tensor]) -> None:
        """Follow the weights."""
        ...


def loss_falls(device: torch.device) -> Result:
    """L_simple on a batch after 20 steps of Adam on it, over that before: half at most.

    Eight pictures of one colour each; their noise and times are the same at every step.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = UNet(
            (3, 8, 8), 3, channels=32, multipliers=(1, 2), blocks=1, attention_resolutions=(4,)
        ).to(device)
    noise = Noise(0, torch.arange(8, device=device))
    x0 = noise.normal("colour", (3, 1, 1)).clamp(-1, 1).expand(8, 3, 8, 8)
    denoiser, u = Denoiser(network, EpsilonPrediction()), noise.uniform("time")
    adam = torch.optim.Adam(network.parameters(), lr=2e-3)
    losses = []
    for _ in range(21):
        loss = SimpleLoss()(denoiser, linear(), x0, u, None, noise).mean()
        losses.append(float(loss.detach()))
        adam.zero_grad()
        torch.autograd.backward(loss)
        adam.step()
    return Result(losses[-1] / losses[0], 0, 0.5)


def closed_form(average: Callable[[nn.Module, float], Average], device: torch.device) -> Result:
    """Max error of 100 updates from Π d_i·w_0 + Σ_i (1 − d_i)·Π_{j>i} d_j·w_i."""
    model = nn.Linear(8, 8).double().to(with_float64(device))
    ema = average(model, 0.9)
    weights = Noise(0, torch.arange(100)).normal("weights", (8, 8)).double().to(model.weight.device)
    expected = model.weight.detach().clone()
    for t, weight in enumerate(weights):
        with torch.no_grad():
            model.weight.copy_(weight)
        ema.update(list(model.parameters()))
        d = min(0.9, (1 + t) / (10 + t))
        expected = d * expected + (1 - d) * weight
    found = next(ema.model.parameters())
    return Result(float((found - expected).abs().max()), 0, 1e-12)


def drift(average: Callable[[nn.Module, float], Average], device: torch.device) -> Result:
    """How many of 1000 weights that stand still differ from their average after 500 updates."""
    model = nn.Linear(100, 10, bias=False).to(device)
    ema = average(model, 0.9999)
    for _ in range(500):
        ema.update(list(model.parameters()))
    return Result(int((next(ema.model.parameters()) != model.weight).sum()), 0, 0)


def checks(average: Callable[[nn.Module, float], Average]) -> list[Check]:
    """Those of learning, with the average of weights (model, decay) that training takes."""
    return [
        Check(GROUP, "loss after 20 steps on one batch / before", "it learns", loss_falls),
        Check(
            GROUP,
            "average of weights: error",
            "its closed form, d = min(0.9, (1+t)/(10+t))",
            partial(closed_form, average),
        ),
        Check(
            GROUP,
            "average of weights that stand still: drifted",
            "w + (1−d)·(w−w) = w",
            partial(drift, average),
        ),
    ]
