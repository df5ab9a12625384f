"""Schedules: what is left at the end, and every level. Predictions: the paper's target inverted."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from unnoise.diffusion import denoiser as kinds
from unnoise.diffusion import schedules
from unnoise.diffusion.denoiser import Denoiser, Prediction
from unnoise.diffusion.levels import diffuse, posterior, transition
from unnoise.diffusion.noise import Noise
from unnoise.diffusion.schedules import EDMSchedule, NoiseSchedule, RectifiedFlow, linear, precise
from unnoise.evaluation.selftest.check import Check, Result, group, with_float64

T = 1000


def last_alpha_bar(
    maker: str, arguments: Sequence[float], published: float, device: torch.device
) -> Result:
    """ᾱ_T, the share of the picture's variance that is left where sampling starts."""
    alphas_cumprod = getattr(schedules, maker)(*arguments).alphas_cumprod
    return Result(float(alphas_cumprod[-1]), published, 1e-5 * published)  # six digits are


def power(device: torch.device) -> Result:
    """max |alpha² + sigma² − 1| over the linear schedule's T levels, at whole and at real times."""
    schedule = schedules.linear()
    t = torch.arange(T, device=device)
    levels = schedule.level(t), schedule.level(precise(t[:-1]) + 0.5)
    off = max(float((level.alpha**2 + level.sigma**2 - 1).abs().max()) for level in levels)
    return Result(off, 0, 1e-6 if device.type == "mps" else 1e-12)


def composition(device: torch.device) -> Result:
    """Of q(x_t | x_{t−1}) one after the other, against q(x_t | x0): max error of alpha and sigma².

    alpha ← scale·alpha and sigma² ← scale²·sigma² + variance from (alpha_1, sigma_1²).
    """
    level = schedules.linear().level(torch.arange(T, device=with_float64(device)))
    each = [type(level)(*values) for values in zip(*level, strict=True)]
    alpha, variance, off = each[0].alpha, each[0].sigma ** 2, 0.0
    for s, t in pairwise(each):
        scale, added = transition(s, t)
        alpha, variance = scale * alpha, scale**2 * variance + added
        off = max(off, float((alpha - t.alpha).abs()), float((variance - t.sigma**2).abs()))
    return Result(off, 0, 1e-12)


def posterior_mean(device: torch.device) -> Result:
    """Of q(x_{t−1} | x_t, x0) in x0, against (x_t − β_t/√(1−ᾱ_t)·ε)/√(1−β_t): max difference."""
    schedule = schedules.linear()
    x0, eps = Noise(0, torch.arange(2)).normal("verify", (64,)).to(with_float64(device)).double()
    off = 0.0
    for k in (1, 10, 100, 500, 999):
        t, s = (schedule.level(torch.tensor(index)) for index in (k, k - 1))
        x_t = t.alpha.to(x0) * x0 + t.sigma.to(x0) * eps
        beta, alpha_bar = (float(table[k]) for table in (schedule.betas, schedule.alphas_cumprod))
        in_eps = (x_t - beta / (1 - alpha_bar) ** 0.5 * eps) / (1 - beta) ** 0.5
        off = max(off, float((posterior(x0, x_t, t, s).mean - in_eps).abs().max()))
    return Result(off, 0, 1e-10)


def zero_snr(device: torch.device) -> Result:
    """√ᾱ_T of the linear schedule stretched to zero terminal SNR."""
    schedule = schedules.zero_terminal_snr(schedules.linear())
    return Result(float(schedule.level(torch.tensor(T - 1, device=device)).alpha), 0, 0)


def inverse(device: torch.device) -> Result:
    """max |time_at(log SNR of t) − t| of the cosine schedule and, in units of 1/T, of a flow."""
    t = torch.linspace(1, T - 2, 777, dtype=torch.float64, device=with_float64(device))
    cosine, flow = schedules.cosine(), RectifiedFlow()
    off = cosine.time_at(cosine.level(t).log_snr) - t
    off_flow = T * flow.time_at(flow.level(t / T).log_snr) - t
    return Result(float(torch.maximum(off.abs(), off_flow.abs()).max()), 0, 1e-8)


SIGMA_DATA = 0.5
Target = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""(x0, eps, alpha, sigma) to what the paper has the network put out."""


class Puts(nn.Module):
    """A network that puts out the same whatever it is shown."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = output

    def forward(self, x: Tensor, t: Tensor, condition: None) -> Tensor:
        """The output."""
        return self.output


def round_trip(
    prediction: Prediction, schedule: NoiseSchedule, target: Target, device: torch.device
) -> Result:
    """Max error of x0 and ε computed from the exact target, at four levels of a schedule."""
    noise = Noise(0, torch.arange(8, device=with_float64(device)))
    x0, eps = (noise.normal(name, (64,)).double() for name in ("x0", "eps"))
    off = 0.0
    for level in schedule.grid(4)[:-1]:
        network = Puts(target(x0, eps, *level.like(x0)))
        denoised = Denoiser(network, prediction)(diffuse(x0, eps, level), level)
        for found, exact in ((denoised.x0, x0), (denoised.eps, eps)):
            off = max(off, float((found - exact).abs().max()))
    return Result(off, 0, 1e-10)


def edm_target(x0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """(x0 − c_skip·x_t)/c_out with c_skip = σ_d²/(σ² + σ_d²), c_out = σ·σ_d/√(σ² + σ_d²)."""
    whole = sigma**2 + SIGMA_DATA**2
    return (x0 - SIGMA_DATA**2 / whole * (x0 + sigma * eps)) / (sigma * SIGMA_DATA / whole.sqrt())


CHECKS = group(
    "schedules",
    ("ᾱ_T, linear", "β 1e-4 … 0.02 (Ho et al. 2020)",
     partial(last_alpha_bar, "linear", (), 4.03583e-5)),
    ("ᾱ_T, quadratic", "√β linear, 1e-4 … 0.02 (the code of DDIM, Song et al. 2021)",
     partial(last_alpha_bar, "quadratic", (), 7.33412e-4)),
    ("ᾱ_T, latent diffusion's", "√β linear, 0.00085 … 0.012 (Rombach et al. 2022)",
     partial(last_alpha_bar, "quadratic", (T, 0.00085, 0.012), 4.66010e-3)),
    ("ᾱ_T, cosine", "s = 0.008, β ≤ 0.999 (Nichol & Dhariwal 2021, eq. 17)",
     partial(last_alpha_bar, "cosine", (), 2.42877e-9)),
    ("ᾱ_T, linear scaled to 200 levels", "β times 1000/T (Nichol & Dhariwal 2021)",
     partial(last_alpha_bar, "linear", (200, 5e-4, 0.1), 3.03184e-5)),
    ("ᾱ_T, linear scaled to 512 levels", "β times 1000/T (Nichol & Dhariwal 2021)",
     partial(last_alpha_bar, "linear", (512, 1e-4 * T / 512, 0.02 * T / 512), 3.77845e-5)),
    ("zero terminal SNR: √ᾱ_T", "Lin et al. 2023, algorithm 1", zero_snr),
    ("alpha² + sigma² = 1", "Ho et al. 2020, eq. 4", power),
    ("q(x_t | x_t−1) composed is q(x_t | x0)", "Ho et al. 2020, eq. 2, 4", composition),
    ("posterior mean in x0 is that in ε", "Ho et al. 2020, eq. 7, 11", posterior_mean),
    ("time of a log-SNR inverts the level", "definition", inverse),
)  # fmt: skip
CHECKS += [
    Check("predictions", f"{name} gives back x0 and ε", source, run)
    for name, source, run in (
        ("ε-prediction", "F = ε (Ho et al. 2020, eq. 11)",
         partial(round_trip, kinds.EpsilonPrediction(), linear(), lambda x0, eps, a, s: eps)),
        ("x0-prediction", "F = x0",
         partial(round_trip, kinds.X0Prediction(), linear(), lambda x0, eps, a, s: x0)),
        ("v-prediction", "F = alpha·ε − sigma·x0 (Salimans & Ho 2022)",
         partial(round_trip, kinds.VPrediction(), schedules.cosine(),
                 lambda x0, eps, a, s: a * eps - s * x0)),
        ("a flow's velocity", "F = ε − x0 (Lipman et al. 2023, with time reversed)",
         partial(round_trip, kinds.FlowPrediction(), RectifiedFlow(),
                 lambda x0, eps, a, s: eps - x0)),
        ("EDM's F", "Karras et al. 2022, Table 1",
         partial(round_trip, kinds.EDMPrediction(SIGMA_DATA), EDMSchedule(), edm_target)),
    )
]  # fmt: skip
