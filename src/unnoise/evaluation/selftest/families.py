"""Other generative families: VAE, normalizing flow and GAN, against closed forms."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from unnoise.diffusion.likelihood import dequantised, level_log_probability
from unnoise.diffusion.noise import Noise
from unnoise.evaluation.selftest.check import Result, group, with_float64
from unnoise.models.flow import NormalizingFlow
from unnoise.models.gan import gradient_penalty, relativistic
from unnoise.models.vae import LOG_CDF, VAE
from unnoise.networks.autoencoders import Posterior
from unnoise.networks.flows import Flow, RealNVP, TarFlow

PICTURES, SHAPE, LATENT = 256, (1, 2, 4), 2
FLOW_SHAPE = (2, 4, 4)
TARFLOW = partial(TarFlow, FLOW_SHAPE, patch=2, width=16, blocks=2, layers=2, heads=2)
REALNVP = partial(RealNVP, FLOW_SHAPE, width=8, couplings=2)


def masses(device: torch.device) -> Result:
    """Sum of the logistic masses of 256 levels, where it is furthest from 1."""
    there = with_float64(device)
    x = torch.arange(256, dtype=torch.float64, device=there) / 127.5 - 1
    scale = torch.tensor([[1e-3], [0.05], [2.0]], dtype=torch.float64, device=there)
    mean = torch.tensor([[-1.3], [0.2], [1.0]], dtype=torch.float64, device=there)
    mass = level_log_probability(x, mean, scale, LOG_CDF["logistic"]).exp().sum(1)
    return Result(float(mass[(mass - 1).abs().argmax()]), 1, 1e-9)


class LinearNetwork(nn.Module):
    """x = W z + b, and q(z | x) = N(V x + c, diag σ²)."""

    def __init__(self) -> None:
        super().__init__()
        self.shape, self.outputs, self.latent = SHAPE, SHAPE[0], LATENT
        n = math.prod(SHAPE)
        with torch.random.fork_rng(devices=[]):
            self.encoder, self.decoder = nn.Linear(n, LATENT), nn.Linear(LATENT, n)
        start = Noise(1, torch.arange(n)).normal("weights", (LATENT,)) / 10
        self.encoder.weight.data, self.decoder.weight.data = start.T.contiguous(), start.clone()
        for layer in (self.encoder, self.decoder):
            nn.init.zeros_(layer.bias)
        self.logvar = nn.Parameter(torch.zeros(LATENT))

    def posterior(self, x: Tensor, vector: Tensor | None = None) -> Posterior:
        """(B, *shape) to mean and ln variance, (B, Z)."""
        mean = self.encoder(x.flatten(1))
        return Posterior(mean, self.logvar.expand_as(mean))

    def forward(self, z: Tensor, vector: Tensor | None = None) -> Tensor:
        """(B, Z) to (B, *shape)."""
        out: Tensor = self.decoder(z).unflatten(1, SHAPE)
        return out


def linear_data() -> Tensor:
    """Pictures of 8 normals, of deviations 45, 28 and six times 8 levels, turned at random."""
    noise, n = Noise(0, torch.arange(PICTURES)), math.prod(SHAPE)
    deviations = torch.tensor([45.0, 28.0] + [8.0] * (n - 2))
    turn: Tensor = torch.linalg.qr(Noise(2, torch.arange(n)).normal("turn", (n,)))[0]
    x = 128 + (noise.normal("data", (n,)) * deviations) @ turn.T
    return x.round().clamp(0, 255).to(torch.uint8).reshape(-1, *SHAPE)


def principal(image: Tensor) -> tuple[Tensor, Tensor]:
    """Variances of the principal components, greatest first, and the first two as columns."""
    x = image.flatten(1).double() / 127.5 - 1
    values, axes = torch.linalg.eigh(torch.cov(x.T, correction=0))
    return values.flip(0), axes.flip(1)[:, :LATENT]


def linear_vae(image: Tensor, steps: int = 200) -> VAE:
    """One that was trained on the pictures, all of them at each step."""
    network = LinearNetwork()
    model = VAE(network, likelihood="normal", scale="channel").to(image.device)  # type: ignore[arg-type]
    adam = torch.optim.Adam(model.parameters(), lr=0.1)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
    ids = torch.arange(len(image), device=image.device)
    with torch.enable_grad():
        for step in range(steps):
            adam.zero_grad()
            loss = model.loss({"image": image}, Noise(step, ids))[0].mean()
            loss.backward()  # type: ignore[no-untyped-call]
            adam.step()
            decay.step()
    return model


def components(device: torch.device) -> Result:
    """Least cosine of the angles between the decoder of a linear VAE and two components."""
    image = linear_data()
    weight = linear_vae(image.to(device)).autoencoder.decoder.weight.detach().cpu().double()
    spanned = torch.linalg.qr(weight)[0]
    return Result(float(torch.linalg.svdvals(principal(image)[1].T @ spanned).min()), 1, 1e-3)


def left_over(device: torch.device) -> Result:
    """Variance of a linear VAE's likelihood, over the mean of the other components' variances."""
    image = linear_data()
    log_scale = linear_vae(image.to(device)).log_scale
    assert log_scale is not None
    found = float((2 * log_scale.detach()).exp().mean())
    return Result(found / float(principal(image)[0][LATENT:].mean()), 1, 0.02)


def there_and_back(network: Callable[[], Flow], device: torch.device) -> Result:
    """Greatest error of a flow's inverse of its own latents."""
    flow, x = _flow(network, device)
    return Result(float((flow(flow.encode(x)[0]) - x).abs().max()), 0, 1e-5)


def volume(network: Callable[[], Flow], device: torch.device) -> Result:
    """Greatest error of ln |det| against that of autograd's whole Jacobian, in nats."""
    flow, x = _flow(network, device)
    found, errors = flow.encode(x)[1], []
    for k, one in enumerate(x):
        jacobian: Any = torch.autograd.functional.jacobian(  # type: ignore[no-untyped-call]
            lambda y: flow.encode(y[None])[0].flatten(), one
        )
        errors.append(torch.linalg.slogdet(jacobian.flatten(1))[1] - found[k])
    return Result(float(torch.stack(errors).abs().max()), 0, 1e-5)


def first_bits(network: Callable[[], Flow], device: torch.device) -> Result:
    """Bits/dim of a fresh flow: those of N(0, I), ½·y² + ½ ln 2π + ln (255/2) nats."""
    with torch.random.fork_rng(devices=[]):
        model = NormalizingFlow(network().to(device))
    image = linear_data().reshape(-1, *FLOW_SHAPE).to(device)
    noise = Noise(0, torch.arange(len(image), device=device))
    with torch.no_grad():
        found = torch.stack([*model.bits({"image": image}, noise).values()]).sum(0).mean()
    y = dequantised(model.codec.encode(image), noise)
    nats = 0.5 * y.square().mean() + 0.5 * math.log(2 * math.pi) + math.log(255 / 2)
    return Result(float(found), float(nats) / math.log(2), 1e-5)


def _flow(network: Callable[[], Flow], device: torch.device) -> tuple[Flow, Tensor]:
    """One with weights N(0, 0.2²), in float64, and 3 signals for it."""
    there = with_float64(device)
    with torch.random.fork_rng(devices=[]):
        flow = network()
    for k, weight in enumerate(flow.parameters()):
        draw = Noise(k, torch.arange(weight.numel())).normal("weights", (1,))
        weight.data = 0.2 * draw.reshape(weight.shape)
    x = Noise(0, torch.arange(3)).normal("x", FLOW_SHAPE)
    return flow.double().requires_grad_(False).to(there), x.double().to(there)


def at_equality(device: torch.device) -> Result:
    """Relativistic loss of two equal scores."""
    score = torch.tensor(1.7, device=device)
    return Result(float(relativistic(score, score)), math.log(2), 1e-7)


def of_a_plane(device: torch.device) -> Result:
    """R1 with γ = 0.5 of the score x ↦ w·x, w = (3, 4): γ/2·|w|² = 6.25."""
    w = torch.tensor([3.0, 4.0], device=device)
    with torch.enable_grad():
        x = torch.ones(5, 2, device=device, requires_grad=True)
        penalty = gradient_penalty((x * w).sum(1), x, 0.5)
    return Result(float(penalty.max()), 6.25, 1e-6)


CHECKS = group(
    "families",
    ("logistic masses of 256 levels", "sum to 1", masses),
    ("linear VAE: cosine to the components", "PCA, Lucas et al. 2019", components),
    ("linear VAE: variance / what PCA leaves", "PCA, Lucas et al. 2019", left_over),
    ("TarFlow: error of the inverse", "the identity", partial(there_and_back, TARFLOW)),
    ("RealNVP: error of the inverse", "the identity", partial(there_and_back, REALNVP)),
    ("TarFlow: ln |det|, error in nats", "autograd's Jacobian", partial(volume, TARFLOW)),
    ("RealNVP: ln |det|, error in nats", "autograd's Jacobian", partial(volume, REALNVP)),
    ("TarFlow: bits/dim before training", "N(0, I), dequantised", partial(first_bits, TARFLOW)),
    ("RealNVP: bits/dim before training", "N(0, I), dequantised", partial(first_bits, REALNVP)),
    ("relativistic loss of equal scores", "ln 2", at_equality),
    ("R1 of a linear discriminator", "γ/2·|w|²", of_a_plane),
)  # fmt: skip
