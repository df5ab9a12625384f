"""Networks: the papers' sizes, and this device's arithmetic against float64 on the CPU."""

import math

import torch
from torch import Tensor, nn

from unnoise.diffusion.denoiser import Clip, Denoiser, EpsilonPrediction, VPrediction
from unnoise.diffusion.noise import Noise
from unnoise.diffusion.objectives import SimpleLoss
from unnoise.diffusion.samplers import DDIM, Sampler
from unnoise.diffusion.schedules import linear
from unnoise.evaluation.selftest.check import Check, Result
from unnoise.networks.blocks import attention
from unnoise.networks.conditioning import ClassConditioner
from unnoise.networks.dit import DiT
from unnoise.networks.unet import UNet

SHAPE = (3, 16, 16)
SEEDED = "weights by Philox, float64 on the CPU"


def small_unet() -> UNet:
    """The network of conf/network/unet_1m.yaml, for pictures of ``SHAPE``."""
    return UNet(
        (3, 16, 16), 3, channels=32, multipliers=(1, 2, 2), attention_resolutions=(8,), head_size=32
    )


def filled_unet() -> UNet:
    """The same with every weight drawn, where a fresh one's output is 0.

    Matrices and kernels are N(0, 1/fan_in), biases N(0, 0.01), what scales N(1, 0.01).
    """
    network = small_unet()
    with torch.no_grad():
        for name, weight in network.named_parameters():
            z = Noise(0, torch.arange(1)).normal(name, weight.shape)[0]
            if weight.ndim > 1:
                weight.copy_(z / math.sqrt(weight[0].numel()))
            else:
                weight.add_(0.1 * z)
    return network


def inputs(device: torch.device) -> tuple[Tensor, Tensor]:
    """Eight x_t (8, 3, 16, 16) and their times."""
    x = Noise(0, torch.arange(8)).normal("x_T", SHAPE)
    return x.to(device), torch.linspace(0, 999, 8, device=device)


def count(network: nn.Module, published: int) -> Result:
    """Parameters of a network."""
    return Result(sum(p.numel() for p in network.parameters()), published, 0)


def ddpm_parameters(device: torch.device) -> Result:
    """Of conf/network/ddpm_cifar10.yaml, counted without making them."""
    with torch.device("meta"):
        return count(UNet((3, 32, 32), 3, dropout=0.1), 35_746_307)


def small_parameters(device: torch.device) -> Result:
    """Of conf/network/unet_1m.yaml with three channels."""
    with torch.device("meta"):
        return count(small_unet(), 1_624_323)


def transformer_parameters(device: torch.device) -> Result:
    """Of conf/network/dit_s.yaml with 1000 classes and one for none; fixed positions count, too."""
    with torch.device("meta"):
        table = ClassConditioner(1000, 384)
        network = DiT((4, 32, 32), 8, table.shape, width=384, depth=12, heads=6)
        weights = [*network.parameters(), *table.parameters(), network.positions]
    return Result(sum(each.numel() for each in weights), 32_963_360, 0)


def first_output(device: torch.device) -> Result:
    """max |output| of a fresh DiT, whose blocks are the identity (adaLN-Zero)."""
    network = DiT(SHAPE, 3, width=64, depth=2, heads=2).to(device)
    return Result(float(network(*inputs(device)).abs().max()), 0, 0)


def first_loss(device: torch.device) -> Result:
    """L_simple of a fresh U-Net, whose output is 0: E ε² = 1 over n numbers, within 4·√(2/n)."""
    noise = Noise(0, torch.arange(64, device=device))
    denoiser = Denoiser(small_unet().to(device), EpsilonPrediction())
    x0 = noise.normal("x0", SHAPE).clamp(-1, 1)
    with torch.no_grad():
        loss = SimpleLoss()(denoiser, linear(), x0, noise.uniform("time"), None, noise)
    return Result(float(loss.mean()), 1, 4 * math.sqrt(2 / x0.numel()))


def golden_output(device: torch.device) -> Result:
    """Root mean square of the filled U-Net's output, in float64, as it was in release 0.1."""
    x, t = inputs(torch.device("cpu"))
    with torch.no_grad():
        output = filled_unet().double()(x.double(), t.double())
    return Result(float(output.square().mean().sqrt()), 0.5274232, 1e-5)


def forward_error(device: torch.device) -> Result:
    """Root mean square of the error in float32 over that of the output."""
    return Result(_error(device, torch.float32), 0, 1e-5)


def autocast_error(device: torch.device) -> Result:
    """The same under bf16 autocast, whose numbers have 8 bits."""
    return Result(_error(device, torch.bfloat16), 0, 0.05)


def _error(device: torch.device, dtype: torch.dtype) -> float:
    network = filled_unet()
    x, t = inputs(torch.device("cpu"))
    mixed = dtype != torch.float32
    with torch.no_grad():
        exact = network.double()(x.double(), t.double())
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=mixed):
            found = network.float().to(device)(x.to(device), t.to(device))
    return float((found.cpu().double() - exact).norm() / exact.norm())


def gradients(network: nn.Module, x: Tensor, t: Tensor) -> Tensor:
    """Of the mean square of the output, by all weights, end to end."""
    found = torch.autograd.grad(network(x, t).square().mean(), list(network.parameters()))
    return torch.cat([each.flatten() for each in found])


def gradient_error(device: torch.device) -> Result:
    """‖error of the float32 gradient‖ / ‖gradient‖ over all weights."""
    network = filled_unet()
    x, t = inputs(torch.device("cpu"))
    exact = gradients(network.double(), x.double(), t.double())
    found = gradients(network.float().to(device), x.to(device), t.to(device))
    return Result(float((found.cpu().double() - exact).norm() / exact.norm()), 0, 1e-4)


def repeated(device: torch.device) -> Result:
    """How many of the 1.6 million gradients differ from one run to the next."""
    network, (x, t) = filled_unet().to(device), inputs(device)
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        first, second = gradients(network, x, t), gradients(network, x, t)
    finally:
        torch.use_deterministic_algorithms(before)
    return Result(int((first != second).sum()), 0, 0)


def attention_error(device: torch.device) -> Result:
    """max |error| of attention over 64 tokens in float32, against softmax(q·kᵀ/√d)·v in float64."""
    q, k, v = (Noise(0, torch.arange(4)).normal(name, (2, 64, 32)) for name in "qkv")
    found = attention(q.to(device), k.to(device), v.to(device)).cpu().double()
    scores = q.double() @ k.double().transpose(-2, -1) / math.sqrt(32)
    return Result(float((found - scores.softmax(-1) @ v.double()).abs().max()), 0, 1e-5)


def any_batch(device: torch.device) -> Result:
    """Max difference of 8 pictures, by 5 steps of DDIM, drawn together and one by one."""
    denoiser = Denoiser(filled_unet().to(device), VPrediction())
    sampler = Sampler(DDIM(), 5, threshold=Clip())
    ids = torch.arange(8, device=device)
    together, *alone = (
        sampler(denoiser, linear(), SHAPE, Noise(5, these)) for these in (ids, *ids[:, None])
    )
    return Result(float((together - torch.cat(alone)).abs().max()), 0, 1e-4)


GROUP = "networks"
CHECKS = [
    Check(GROUP, "DDPM's CIFAR-10 U-Net: parameters", "35.7M, Ho et al. 2020", ddpm_parameters),
    Check(GROUP, "1M U-Net: parameters", "of release 0.1", small_parameters),
    Check(GROUP, "DiT-S/2: parameters", "33M, Peebles & Xie 2023", transformer_parameters),
    Check(GROUP, "first output of a DiT", "exactly 0: adaLN-Zero", first_output),
    Check(GROUP, "first loss of a fresh U-Net", "E ε² = 1", first_loss),
    Check(GROUP, "U-Net, float64 on the CPU: output's rms", "of release 0.1", golden_output),
    Check(GROUP, "U-Net, float32: relative error of outputs", SEEDED, forward_error),
    Check(GROUP, "U-Net, float32: relative error of gradients", SEEDED, gradient_error),
    Check(GROUP, "U-Net, bf16 autocast: relative error", SEEDED, autocast_error),
    Check(GROUP, "attention, float32: greatest error", "softmax(q·kᵀ/√d)·v", attention_error),
    Check(GROUP, "gradients that differ when repeated", "the same arithmetic twice", repeated),
    Check(GROUP, "pictures in batches of 1 and of 8", "a picture is its id's alone", any_batch),
]
