"""Autoencoders: sizes, divergences, codes."""

from functools import partial

import torch
from torch import Tensor

from unnoise.diffusion.noise import Noise
from unnoise.evaluation.selftest.check import Result, group
from unnoise.evaluation.selftest.networks import parameters
from unnoise.models.autoencoder import adaptive_weight
from unnoise.networks.autoencoders import FSQ, Codebook, KLAutoencoder, Posterior


def latents(device: torch.device) -> Tensor:
    """(64, 4, 8, 8), N(0, 1)."""
    return Noise(0, torch.arange(64, device=device)).normal("z", (4, 8, 8))


def divergence(device: torch.device) -> Result:
    """Max relative error of the KL to N(0, I) against torch.distributions."""
    mean, logvar = latents(device).chunk(2, dim=1)
    normal = torch.distributions.Normal(mean, (0.5 * logvar).exp())
    standard = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    expected = torch.distributions.kl_divergence(normal, standard).flatten(1).sum(1)
    return Result(float((Posterior(mean, logvar).kl / expected - 1).abs().max()), 0, 1e-5)


def one_to_one(device: torch.device) -> Result:
    """How many of the codes of an FSQ of 8·5·5·5 levels stand for a latent of their own."""
    codes = torch.arange(1000, device=device).reshape(1, 10, 100)
    vectors = FSQ((8, 5, 5, 5)).to(device).vectors_of(codes)
    return Result(len({*map(tuple, vectors.flatten(2)[0].T.tolist())}), 1000, 0)


def rounded(device: torch.device) -> Result:
    """How many latents an FSQ's code says otherwise than its quantized value does."""
    fsq = FSQ((8, 5, 5, 5)).to(device)
    found = fsq(latents(device))
    assert found.codes is not None
    return Result(int(((fsq.vectors_of(found.codes) - found.z).abs() > 1e-6).sum()), 0, 0)


def straight_through(device: torch.device) -> Result:
    """Max difference of the gradient through a codebook from that without one."""
    z, book = latents(device).requires_grad_(), _book(device)
    (gradient,) = torch.autograd.grad((book(z).z * z.detach()).sum(), z)
    return Result(float((gradient - z.detach()).abs().max()), 0, 0)


def alive(device: torch.device) -> Result:
    """Share of 32 codes, at first all but one too far to be used, that 40 steps bring to use."""
    book = _book(device)
    book.vectors += 100
    book.vectors[0] = 0
    for step in range(40):
        noise = Noise(step, torch.arange(64, device=device))
        found = book(noise.normal("z", (4, 8, 8)))
        book.learn(book.statistics(found), book.candidates(found, noise))
    assert found.codes is not None
    return Result(len({*found.codes.flatten().tolist()}) / 32, 1, 0.2)


def balanced(device: torch.device) -> Result:
    """λ of the losses 5·w and 0.5·w, whose gradients are 5 and 0.5: 5 / (0.5 + 1e-4)."""
    gradients = torch.tensor([5.0, 0.5], device=device)
    return Result(float(adaptive_weight(*gradients)), 5 / 0.5001, 1e-4)


def _book(device: torch.device) -> Codebook:
    with torch.random.fork_rng(devices=[]):
        book = Codebook(32, 4)
    book.vectors.copy_(Noise(1, torch.arange(32)).normal("codes", (4,)))
    return book.to(device)


CHECKS = group(
    "autoencoders",
    ("Stable Diffusion's autoencoder: parameters", "83.7M, Rombach et al. 2022",
     partial(parameters, lambda: [KLAutoencoder(3)], 83_653_863)),
    ("KL to N(0, I): relative error", "torch.distributions", divergence),
    ("codes of an FSQ that differ", "8·5·5·5 levels", one_to_one),
    ("latents that an FSQ's codes do not say", "a bijection", rounded),
    ("gradient through a codebook: error", "that of the identity", straight_through),
    ("share of dead codes that come alive", "random restarts", alive),
    ("adaptive weight of linear losses", "|∇a| / (|∇b| + 1e-4)", balanced),
)  # fmt: skip
