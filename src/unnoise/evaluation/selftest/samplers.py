"""Samplers, the bound and guidance, by optimal denoisers whose every marginal is known."""

import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from unnoise.diffusion import samplers
from unnoise.diffusion.denoiser import Denoised, Denoiser, EpsilonPrediction
from unnoise.diffusion.guidance import Guidance, extrapolated
from unnoise.diffusion.levels import Gaussian, NoiseLevel, diffuse
from unnoise.diffusion.likelihood import pixel_log_likelihood, prior_term, step_term
from unnoise.diffusion.noise import Noise
from unnoise.diffusion.oracle import GaussianOracle, exact_moments, with_optimal_variance
from unnoise.diffusion.schedules import linear
from unnoise.evaluation.selftest.check import Result, group, with_float64
from unnoise.evaluation.selftest.networks import filled, small_transformers
from unnoise.models.codec import PixelCodec
from unnoise.models.diffusion import DiffusionModel
from unnoise.networks.conditioning import TextConditioner, TextEncoder

ORACLE = GaussianOracle(mu=0.3, s=0.25)
STARTS = (-1.0, 0.2, 1.3)


def order(steps: Sequence[int], errors: Sequence[float]) -> float:
    """The slope of −ln error over ln steps."""
    x, y = (torch.tensor(values, dtype=torch.float64).log() for values in (steps, errors))
    x, y = x - x.mean(), y - y.mean()
    return -float((x * y).sum() / (x * x).sum())


def ode_error(stepper: samplers.Stepper, steps: int, device: torch.device) -> float:
    """Max error at the end of the path, by steps on a log-SNR-uniform grid."""
    schedule = linear()
    levels = schedule.grid(steps + 1, "log_snr")[:-1]
    x = torch.tensor(STARTS, dtype=torch.float64, device=with_float64(device))[:, None]
    found = samplers.sample(samplers.Walk(ORACLE, schedule, torch.empty), stepper, levels, x)
    return float((found - ORACLE.along_the_ode(x, levels[0], levels[-1])).abs().max())


def convergence(stepper: samplers.Stepper, device: torch.device) -> Result:
    """The order by 80, 160 and 320 steps, against the declared one."""
    steps = (80, 160, 320)
    errors = [ode_error(stepper, n, device) for n in steps]
    return Result(order(steps, errors), stepper.order, 0.15)


def adaptive(device: torch.device) -> Result:
    """The error where a tolerance of 1e-5 holds at every step of the path."""
    stepper = samplers.AdaptiveODE(1e-5, 1e-5)
    return Result(ode_error(stepper, 1, device), 0, 30 * 1e-5)


def variance_ratio(
    stepper: samplers.Stepper, steps: int, published: float, device: torch.device
) -> Result:
    """Variance of the pictures over that of the data, on a uniform grid of the linear schedule."""
    schedule = linear()
    levels = schedule.grid(steps)
    there = with_float64(device)
    _, variance = exact_moments(stepper, schedule, levels, oracle=ORACLE, device=there)
    return Result(variance / ORACLE.s**2, published, 1e-3)


def moment_recursion(device: torch.device) -> Result:
    """Variance of the pictures of DDIM in 50 steps over that of the data, against Π r²/s².

    r = (√(ᾱ_s·ᾱ_t)·s² + √((1 − ᾱ_s)(1 − ᾱ_t)))/v_t from t to s, ᾱ = 1 at the end; a grid that ended
    at ᾱ_1 would be 0.3 % off.
    """
    schedule, slope = linear(), 1.0
    times = torch.linspace(schedule.T - 1, 0, 50, dtype=torch.float64).round().long()
    for now, to in pairwise([*schedule.alphas_cumprod[times].tolist(), 1.0]):
        v = now * ORACLE.s**2 + 1 - now
        slope *= (math.sqrt(to * now) * ORACLE.s**2 + math.sqrt((1 - to) * (1 - now))) / v
    found = variance_ratio(samplers.DDIM(), 50, 0.811, device).got
    return Result(found, slope**2 / ORACLE.s**2, 1e-11)


def optimal_variance(device: torch.device) -> Result:
    """Variance of x at the cleanest level after 10 steps from the noisiest, over the exact one."""
    schedule = linear()
    levels = schedule.grid(10)
    start, (_, exact) = ORACLE.marginal(levels[0]), ORACLE.marginal(levels[-2])
    best = with_optimal_variance(ORACLE, levels)
    there = with_float64(device)
    _, found = exact_moments(
        samplers.Ancestral("learned"), schedule, levels[:-1], *start, oracle=best, device=there
    )
    return Result(found / exact, 1, 1e-5)


def eta_one(device: torch.device) -> Result:
    """Max difference in 20 steps between DDIM with η = 1 and ancestral sampling with β̃."""
    schedule = linear()
    levels = schedule.grid(20, "quadratic")
    noise = Noise(0, torch.arange(4, device=with_float64(device)))
    x_T = noise.normal("x_T", (16,)).double()

    def draw(stepper: samplers.Stepper) -> Tensor:
        fresh = noise.normals("sampler", (16,))
        return samplers.sample(
            samplers.Walk(ORACLE, schedule, lambda: fresh().double()), stepper, levels, x_T
        )

    off = (draw(samplers.DDIM(1.0)) - draw(samplers.Ancestral("posterior"))).abs().max()
    return Result(float(off), 0, 1e-10)


def pictures(stepper: samplers.Stepper, device: torch.device) -> Result:
    """How many standard errors √(2/n) the variance of 20,000 pixels is off the exact one."""
    n, pixels, schedule = 5000, 4, linear()
    _, exact = exact_moments(stepper, schedule, schedule.grid(50), oracle=ORACLE)
    noise = Noise(0, torch.arange(n, device=device))
    x = samplers.Sampler(stepper, steps=50)(ORACLE, schedule, (pixels,), noise)
    return Result((float(x.cpu().double().var()) / exact - 1) / math.sqrt(2 / (n * pixels)), 0, 4)


GAUSSIAN = "x0 ~ N(0.3, 0.25²) with its ε* in closed form, exact moments of affine steps"
ORDER = "declared order; the oracle's probability-flow ODE is solved in closed form"
RATIOS = [
    ("DDIM", samplers.DDIM(), {50: 0.811, 250: 0.958, 1000: 0.988}),
    ("ancestral β̃", samplers.Ancestral("posterior"), {50: 0.673, 250: 0.901, 1000: 0.970}),
]
ODE = [
    ("Euler", samplers.Euler()),
    ("Heun", samplers.Heun()),
    ("DPM-Solver++ 2M", samplers.DPMSolver()),
    ("UniPC", samplers.UniPC()),
]


STEPS = 200


def bound_is_entropy(device: torch.device) -> Result:
    """L_T + Σ L_{t−1} + H(x0 | x_1) in nats, against H(x0).

    The terms are quadratic in x0 and ε, so that Gauss–Hermite's three nodes each, 0 and ±√3 of
    weights 2/3 and 1/6, give their means exactly. The entropy of x0 given x_1 stands for L_0, which
    is that of pixels on 256 levels.
    """
    there = with_float64(device)
    nodes = torch.tensor([-(3**0.5), 0, 3**0.5], dtype=torch.float64, device=there)
    weight = torch.tensor([1 / 6, 2 / 3, 1 / 6], dtype=torch.float64, device=there)
    weights = torch.outer(weight, weight).flatten()
    x0 = ORACLE.mu + ORACLE.s * nodes.repeat_interleave(3)[:, None]
    eps = nodes.repeat(3)[:, None]
    levels = linear().grid(STEPS)
    best = with_optimal_variance(ORACLE, levels)
    bits = prior_term(x0, levels[0])
    for t, s in pairwise(levels[:-1]):
        x_t = diffuse(x0, eps, t)
        bits = bits + step_term(best(x_t, t), x0, x_t, t, s, "learned")
    last = 0.5 * math.log(2 * math.pi * math.e * float(ORACLE.posterior_variance(levels[-2])))
    return Result(float(weights @ bits) * math.log(2) + last, ORACLE.entropy, 1e-5)


def decoder_mass(device: torch.device) -> Result:
    """max |Σ p − 1| over 256 grey levels, for means in and out of [−1, 1]."""
    there = with_float64(device)
    x0 = (torch.arange(256, dtype=torch.float64, device=there) / 127.5 - 1)[:, None]
    means = torch.tensor([-7.0, -0.3, 0.001, 1.0], dtype=torch.float64, device=there)
    variances = torch.tensor([1e-6, 0.25, 1e-4, 1600.0], dtype=torch.float64, device=there)
    masses = pixel_log_likelihood(x0, Gaussian(means, variances)).exp().sum(0)
    return Result(float((masses - 1).abs().max()), 0, 1e-12)


ENTROPY = "½·ln(2πe·s²) of x0 ~ N(0.3, 0.25²)"


CONDITIONAL, UNCONDITIONAL = GaussianOracle(mu=0.5, s=0.2), GaussianOracle(mu=-0.1, s=0.4)


def guided(scale: float, tolerance: float, device: torch.device) -> Result:
    """max |ε − (s·ε_conditional + (1 − s)·ε_unconditional)| and that of x0, in float32."""
    x_t = Noise(0, torch.arange(8, device=device)).normal("x_T", (64,))

    def pair(x: torch.Tensor, level: NoiseLevel) -> tuple[Denoised, Denoised]:
        return CONDITIONAL(x, level), UNCONDITIONAL(x, level)

    off = 0.0
    for level in linear().grid(5)[:-1]:
        found = extrapolated(CONDITIONAL, pair, Guidance(scale))(x_t, level)
        for part in ("x0", "eps"):
            strong, weak = (getattr(denoised, part) for denoised in pair(x_t, level))
            expected = scale * strong + (1 - scale) * weak
            off = max(off, float((getattr(found, part) - expected).abs().max()))
    return Result(off, 0, tolerance)


class Bytes(TextEncoder):
    """A token for each letter, of sines of its code."""

    def __init__(self) -> None:
        super().__init__(4)

    def embed(self, text: str) -> torch.Tensor:
        """(L, 4)."""
        codes = torch.tensor([*text.encode()])[:, None]
        return (codes * torch.tensor([1.0, 2.0, 3.0, 5.0])).sin()


def negative(texts: Sequence[str], tolerance: float, device: torch.device) -> Result:
    """max |ε − (3·ε_caption − 2·ε_negative)|, the branches by calls of the network of their own.

    With ``texts`` "", ε_negative is that under the null condition.
    """
    with torch.random.fork_rng(devices=[]):
        conditioner = filled(TextConditioner(Bytes(), 24, pooled=False))
    shape, network = (4, 16, 16), small_transformers()
    parts = Denoiser(network, EpsilonPrediction()), linear(), PixelCodec(shape), conditioner
    model = DiffusionModel(*parts).to(device)
    batch = {"caption": ["a red knight", "a cave"], "negative": texts}
    x_t = Noise(0, torch.arange(2, device=device)).normal("x_T", shape)
    level, kept = linear().level(torch.tensor(400)), torch.ones(2, device=device).bool()
    none = [text != "" for text in texts]
    with torch.no_grad():
        found = model.guided(batch, 2, Guidance(3.0))(x_t, level).eps
        strong, weak = (
            model.under(conditioner({"caption": words}, keep))(x_t, level).eps
            for words, keep in (
                (batch["caption"], kept),
                (texts, torch.tensor(none, device=device)),
            )
        )
    return Result(float((found - (3 * strong - 2 * weak)).abs().max()), 0, tolerance)


SOURCE = "Ho & Salimans 2022, eq. 6, with s = 1 + w"

CHECKS = group(
    "samplers",
    *(
        (
            f"{name}, {k} steps: variance / data's",
            GAUSSIAN,
            partial(variance_ratio, stepper, k, ratio),
        )
        for name, stepper, ratios in RATIOS
        for k, ratio in ratios.items()
    ),
    ("DDIM, 50 steps: the moment recursion", GAUSSIAN, moment_recursion),
    ("optimal variance: exact marginal", "Bao et al. 2022", optimal_variance),
    ("DDIM with η = 1 is ancestral β̃", "Song et al. 2021, eq. 16", eta_one),
    *(
        (f"{name}: order of convergence", ORDER, partial(convergence, stepper))
        for name, stepper in [("DDIM", samplers.DDIM()), *ODE]
    ),
    ("adaptive ODE: error at tolerance 1e-5", ORDER, adaptive),
    *(
        (f"{name}, 20,000 float32 pixels: variance, z", GAUSSIAN, partial(pictures, stepper))
        for name, stepper in (
            ("DDIM", samplers.DDIM()),
            ("ancestral β", samplers.Ancestral("beta")),
        )
    ),
)
CHECKS += group(
    "likelihood",
    ("bound with the optimal variance is H(x0), nats", ENTROPY, bound_is_entropy),
    ("the decoder's 256 masses sum to 1", "Ho et al. 2020, eq. 13", decoder_mass),
)
CHECKS += group(
    "guidance",
    ("s = 1 is the conditional prediction, exactly", SOURCE, partial(guided, 1.0, 0.0)),
    ("s = 0 is the unconditional prediction, exactly", SOURCE, partial(guided, 0.0, 0.0)),
    ("s = 3 is 3·conditional − 2·unconditional", SOURCE, partial(guided, 3.0, 1e-5)),
    ("s = 3 is 3·caption − 2·negative caption", SOURCE, partial(negative, ("night", "x"), 1e-4)),
    ("an empty negative caption is the null condition", SOURCE, partial(negative, ("", ""), 1e-4)),
)
