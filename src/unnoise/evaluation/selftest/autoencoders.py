"""Autoencoders: sizes, divergences, codes."""

import math
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from unnoise.diffusion.noise import Noise
from unnoise.diffusion.oracle import GaussianOracle
from unnoise.diffusion.samplers import Heun, Sampler
from unnoise.diffusion.schedules import linear
from unnoise.evaluation import latents as numbers
from unnoise.evaluation.selftest.check import Result, group
from unnoise.evaluation.selftest.networks import filled, parameters
from unnoise.models.autoencoder import adaptive_weight
from unnoise.models.codec import LatentCodec
from unnoise.networks.autoencoders import (
    FSQ,
    Autoencoder,
    Codebook,
    KLAutoencoder,
    Posterior,
    Transform,
)


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


def bits(device: torch.device) -> Result:
    """KL of N(1, 1) to N(0, 1): ½ nat an element."""
    ones = torch.ones(2, 4, 8, 8, device=device)
    kl = Posterior(ones, 0 * ones).kl / 256 / math.log(2)
    return Result(float(kl.mean()), 0.5 / math.log(2), 1e-6)


def error_of_five(device: torch.device) -> Result:
    """PSNR of pictures that differ by 5 of 255 everywhere."""
    x = torch.arange(192, dtype=torch.uint8, device=device).reshape(1, 3, 8, 8)
    return Result(float(numbers.psnr(x, x + 5)), 20 * math.log10(51), 1e-9)


def likeness_of_equals(device: torch.device) -> Result:
    """SSIM of a picture with itself."""
    x = torch.arange(768, device=device).remainder(256).to(torch.uint8).reshape(1, 3, 16, 16)
    return Result(float(numbers.ssim(x, x)), 1, 1e-5)


def evenly_used(device: torch.device) -> Result:
    """Perplexity of 512 codes, each used as often."""
    return Result(numbers.usage(torch.full((512,), 3)).perplexity, 512, 1e-6)


def slope(exponent: float, device: torch.device) -> Result:
    """Of the spectrum of normals whose amplitudes go with the frequency to the ``exponent``."""
    side = torch.arange(16, dtype=torch.float64)
    f = (side[:, None].square() + side.square()).sqrt()
    f[0, 0] = 1
    white = Noise(0, torch.arange(256)).normal("white", (1, 16, 16)).double()
    return Result(numbers.spectrum((white * f**exponent).square().mean((0, 1))).slope,
                  2 * exponent, 0.05)  # fmt: skip


def equivariant(device: torch.device) -> Result:
    """Max error of M⁻¹·T(M·x) = T x, M a map of colours, T a change of size and a turn."""
    matrix = torch.tensor([[2.0, 1, 0], [0, 1, 0], [0, 0, -1]], device=device)
    x = latents(device)[:, :3]
    z, like = Transform(0.5, 1).of(torch.einsum("ij,bjhw->bihw", matrix, x), x)
    back = torch.linalg.inv(matrix.cpu()).to(device)
    return Result(float((torch.einsum("ij,bjhw->bihw", back, z) - like).abs().max()), 0, 1e-5)


class Fold(Autoencoder):
    """z = 10·x + 3, with 2 × 2 pixels as channels."""

    scaled: ClassVar[bool] = True

    def latent_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """(4·C, H / 2, W / 2)."""
        return 4 * shape[0], shape[1] // 2, shape[2] // 2

    def moments(self, x: Tensor) -> Tensor:
        """z."""
        return 10 * F.pixel_unshuffle(x, 2) + 3

    def decode(self, z: Tensor) -> Tensor:
        """x."""
        return F.pixel_shuffle((z - 3) / 10, 2)


def through_a_latent(device: torch.device) -> Result:
    """Deviation of pixels, in grey levels, that were drawn in a latent, of N(128, 20²) ones."""
    codec = LatentCodec(Fold(), (1, 16, 16)).to(device)
    mean, deviation = 10 * (128 / 127.5 - 1) + 3, 10 * 20 / 127.5
    codec.set_scale(torch.full((4,), mean), torch.full((4,), deviation))
    draws = Sampler(Heun(), steps=100), Noise(0, torch.arange(2048, device=device))
    signal = draws[0](GaussianOracle(0.0, 1.0), linear(), codec.shape, draws[1])
    return Result(float(codec.decode(signal).double().std()), 20, 0.15)


def in_strips(device: torch.device) -> Result:
    """Max error of a decoding in five strips of a latent, quiet above and loud below, over its max.

    Relative to decoding as a whole; strips decoded alone would have 0.3.
    """
    with torch.random.fork_rng(devices=[]):
        network = filled(KLAutoencoder(3, channels=16, multipliers=(1, 2, 2))).to(device).eval()
    z = latents(device)[:2]
    z[:, :, :4] *= 0.01
    with torch.no_grad():
        whole = network.decoder(network.post_quant(z))
        found = network.decoder.in_strips(network.post_quant(z), 5)
    return Result(float((found - whole).abs().max() / whole.abs().max()), 0, 1e-5)


def _book(device: torch.device) -> Codebook:
    with torch.random.fork_rng(devices=[]):
        book = Codebook(32, 4)
    book.vectors.copy_(Noise(1, torch.arange(32)).normal("codes", (4,)))
    return book.to(device)


CHECKS = group(
    "autoencoders",
    ("Stable Diffusion's autoencoder: parameters", "83.7M, Rombach et al. 2022",
     partial(parameters, lambda: [KLAutoencoder(3)], 83_653_863)),
    ("decoding in strips: error", "decoding as a whole", in_strips),
    ("KL to N(0, I): relative error", "torch.distributions", divergence),
    ("codes of an FSQ that differ", "8·5·5·5 levels", one_to_one),
    ("latents that an FSQ's codes do not say", "a bijection", rounded),
    ("gradient through a codebook: error", "that of the identity", straight_through),
    ("share of dead codes that come alive", "random restarts", alive),
    ("KL of N(1, 1) to N(0, 1), bits", "½ / ln 2", bits),
    ("PSNR of an error of 5 of 255, dB", "20·log10(51)", error_of_five),
    ("SSIM of equal pictures", "Wang et al. 2004", likeness_of_equals),
    ("perplexity of 512 codes evenly used", "512", evenly_used),
    ("slope of the spectrum of white noise", "0", partial(slope, 0)),
    ("slope of the spectrum of a 1/f field", "−2", partial(slope, -1)),
    ("decode(T z) − T x of a map of colours", "Kouzelis et al. 2025", equivariant),
    ("deviation of pixels drawn in a latent", "Gaussian data, 20", through_a_latent),
    ("adaptive weight of linear losses", "|∇a| / (|∇b| + 1e-4)", balanced),
)  # fmt: skip
