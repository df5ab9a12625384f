"""Networks: the papers' sizes, this device's arithmetic, and whether they learn."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from unnoise.diffusion.denoiser import Clip, Denoiser, EpsilonPrediction, VPrediction
from unnoise.diffusion.noise import Noise
from unnoise.diffusion.objectives import SimpleLoss
from unnoise.diffusion.samplers import DDIM, Sampler
from unnoise.diffusion.schedules import linear
from unnoise.evaluation.selftest.check import Result, group, with_float64
from unnoise.models.ema import EMA
from unnoise.networks.blocks import attention
from unnoise.networks.conditioning import ClassConditioner, Condition, ConditionShape
from unnoise.networks.dit import DiT
from unnoise.networks.unet import UNet

N = TypeVar("N", bound=nn.Module)
SHAPE = (3, 16, 16)
SEEDED = "weights by Philox, float64 on the CPU"


def small_unet() -> UNet:
    """The network of conf/network/unet_1m.yaml, for pictures of ``SHAPE``."""
    return UNet(
        SHAPE, 3, channels=32, multipliers=(1, 2, 2), attention_resolutions=(8,), head_size=32
    )


def filled_unet() -> UNet:
    """The same with every weight drawn."""
    return filled(small_unet())


def filled(network: N) -> N:
    """With every weight drawn, where a fresh network's output is 0.

    Matrices and kernels are N(0, 1/fan_in), biases N(0, 0.01), what scales N(1, 0.01).
    """
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


def parameters(make: Callable[[], Sequence[nn.Module]], n: int, device: torch.device) -> Result:
    """Of modules, counted without making them; fixed positions count, too."""
    with torch.device("meta"):
        modules = make()
    weights: list[Tensor] = [weight for module in modules for weight in module.parameters()]
    weights += [module.positions for module in modules if isinstance(module, DiT)]
    return Result(sum(each.numel() for each in weights), n, 0)


def stable_diffusion() -> list[nn.Module]:
    """The network of conf/network/sd15.yaml."""
    levels = {"multipliers": (1, 2, 4, 4), "attention_resolutions": (64, 32, 16)}
    return [transformers((4, 64, 64), 768, channels=320, heads=8, **levels)]


def transformers(shape: tuple[int, int, int], tokens: int, **sizes: Any) -> UNet:
    """A U-Net with transformers in Stable Diffusion's conventions."""
    adm: Any = {"transformer_depth": 1, "convention": "adm"}
    return UNet(shape, shape[0], ConditionShape(tokens=tokens), **sizes, **adm)


def small_transformers() -> UNet:
    """A filled one for latents (4, 16, 16) and tokens of width 24."""
    levels = {"multipliers": (1, 2, 2), "attention_resolutions": (16, 8), "norm_groups": 8}
    return filled(transformers((4, 16, 16), 24, channels=32, heads=4, **levels))


def as_diffusers(device: torch.device) -> Result:
    """Root mean square of its output, in float64: 8 latents, 7 tokens each."""
    noise = Noise(0, torch.arange(8))
    x, tokens = noise.normal("x_T", (4, 16, 16)), noise.normal("tokens", (7, 24))
    t, condition = torch.linspace(0, 999, 8), Condition(tokens=tokens.double())
    with torch.no_grad():
        output = small_transformers().double()(x.double(), t.double(), condition)
    return Result(float(output.square().mean().sqrt()), 0.5723312312, 1e-9)


def dit_s() -> tuple[nn.Module, ...]:
    """That of conf/network/dit_s.yaml with 1000 classes and one for none."""
    with torch.device("cpu"):  # normals on "meta" take PyTorch a second of imports
        table = ClassConditioner(1000, 384)
    return table, DiT((4, 32, 32), 8, table.shape, width=384, depth=12, heads=6)


def first_output(device: torch.device) -> Result:
    """max |output| of a fresh DiT, whose blocks are the identity (adaLN-Zero)."""
    network = DiT(SHAPE, 3, width=64, depth=2, heads=2).to(device)
    return Result(network(*inputs(device)).abs().max().item(), 0, 0)


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
    output = outputs(filled_unet().double(), x.double(), t.double())
    return Result(float(output.square().mean().sqrt()), 0.5274232, 1e-5)


def outputs(network: nn.Module, x: Tensor, t: Tensor) -> Tensor:
    """Those of a network, without gradients."""
    with torch.no_grad():
        found: Tensor = network(x, t)
    return found


def gradients(network: nn.Module, x: Tensor, t: Tensor) -> Tensor:
    """Of the mean square of the output, by all weights, end to end."""
    found = torch.autograd.grad(network(x, t).square().mean(), list(network.parameters()))
    return torch.cat([each.flatten() for each in found])


def error(
    what: Callable[[nn.Module, Tensor, Tensor], Tensor],
    dtype: torch.dtype,
    tolerance: float,
    device: torch.device,
) -> Result:
    """‖error‖ / ‖exact‖ of what a network gives in float32, or under bf16 autocast."""
    network = filled_unet()
    x, t = inputs(torch.device("cpu"))
    exact = what(network.double(), x.double(), t.double())
    with torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
        found = what(network.float().to(device), x.to(device), t.to(device))
    return Result(float((found.cpu().double() - exact).norm() / exact.norm()), 0, tolerance)


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


def closed_form(device: torch.device) -> Result:
    """Max error of 100 updates from Π d_i·w_0 + Σ_i (1 − d_i)·Π_{j>i} d_j·w_i."""
    model = nn.Linear(8, 8).double().to(with_float64(device))
    ema = EMA(model, 0.9)
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


def drift(device: torch.device) -> Result:
    """How many of 1000 weights that stand still differ from their average after 500 updates."""
    model = nn.Linear(100, 10, bias=False).to(device)
    ema = EMA(model, 0.9999)
    for _ in range(500):
        ema.update(list(model.parameters()))
    return Result(int((next(ema.model.parameters()) != model.weight).sum()), 0, 0)


CHECKS = group(
    "networks",
    ("DDPM's CIFAR-10 U-Net: parameters", "35.7M, Ho et al. 2020",
     partial(parameters, lambda: [UNet((3, 32, 32), 3, dropout=0.1)], 35_746_307)),
    ("1M U-Net: parameters", "of release 0.1",
     partial(parameters, lambda: [small_unet()], 1_624_323)),
    ("Stable Diffusion 1.5's U-Net: parameters", "860M, Rombach et al. 2022",
     partial(parameters, stable_diffusion, 859_520_964)),
    ("U-Net with transformers: output's rms", "diffusers, UNet2DConditionModel", as_diffusers),
    ("DiT-S/2: parameters", "33M, Peebles & Xie 2023", partial(parameters, dit_s, 32_963_360)),
    ("first output of a DiT", "exactly 0: adaLN-Zero", first_output),
    ("first loss of a fresh U-Net", "E ε² = 1", first_loss),
    ("U-Net, float64 on the CPU: output's rms", "of release 0.1", golden_output),
    ("U-Net, float32: relative error of outputs", SEEDED,
     partial(error, outputs, torch.float32, 1e-5)),
    ("U-Net, float32: relative error of gradients", SEEDED,
     partial(error, gradients, torch.float32, 1e-4)),
    ("U-Net, bf16 autocast: relative error", SEEDED,
     partial(error, outputs, torch.bfloat16, 0.05)),
    ("attention, float32: greatest error", "softmax(q·kᵀ/√d)·v", attention_error),
    ("gradients that differ when repeated", "the same arithmetic twice", repeated),
    ("pictures in batches of 1 and of 8", "a picture is its id's alone", any_batch),
)  # fmt: skip
CHECKS += group(
    "learning",
    ("loss after 20 steps on one batch / before", "it learns", loss_falls),
    ("average of weights: error", "its closed form, d = min(0.9, (1+t)/(10+t))", closed_form),
    ("average of weights that stand still: drifted", "w + (1−d)·(w−w) = w", drift),
)
