"""Every check passes here, and fails where what it looks at is broken."""

from dataclasses import replace
from pkgutil import resolve_name

import pytest
import torch

from unnoise.diffusion import schedules
from unnoise.diffusion.denoiser import Denoised
from unnoise.evaluation.selftest import checks
from unnoise.evaluation.selftest.check import outcomes

CPU = torch.device("cpu")
CHECKS = {check.name: check for check in checks.CHECKS}


def outcome(name):
    (found,) = outcomes([CHECKS[name]], CPU)
    return found


@pytest.mark.parametrize("name", CHECKS)
def test_passes(name):
    assert outcome(name).passed, outcome(name)


# What is wrong, as functions of what is right.


def scaled(factor):
    return lambda f: lambda *args, **kwargs: f(*args, **kwargs) * factor


def negative(f):
    return lambda self, *args: tuple(-part for part in f(self, *args))


def another_start(f):
    return lambda *args: schedules.DiscreteSchedule(f(*args).betas * 0.9999)


def ends_at_the_first_level(f):
    return lambda self, *args: [*f(self, *args)[:-1], self.level(torch.tensor(0))]


def noisier(f):
    def level(self, t):
        found = f(self, t)
        return found._replace(sigma=found.sigma * 1.000001)

    return level


def of_first_order(f):
    """Euler's step."""

    def step(self, walk, x, now, to):
        denoised = walk.denoise(x, now)
        return to.alpha * denoised.x0 + to.sigma * denoised.eps

    return step


def w_for_s(f):
    def extrapolated(strong, pair, guidance):
        def denoise(x, level):
            (x0, eps, _), (weak_x0, weak_eps, _), w = *pair(x, level), guidance.scale
            return Denoised((1 + w) * x0 - w * weak_x0, (1 + w) * eps - w * weak_eps)

        return denoise

    return extrapolated


def network(change):
    """A U-Net whose output is changed, as change(output, input)."""
    return lambda f: lambda self, x, t, condition=None: change(f(self, x, t, condition), x)


def wider(f):
    return lambda self, *args, channels=128, **kwargs: f(
        self, *args, channels=channels + 4, **kwargs
    )


def deeper(f):
    return lambda self, *args, depth, **kwargs: f(self, *args, depth=depth + 1, **kwargs)


def unscaled(f):
    return lambda q, k, v, attn_mask=None: f(q, k, v, scale=1.0)


def nothing(f):
    return lambda *args, **kwargs: None


def drifting(f):
    def update(self, parameters):
        f(self, parameters)
        torch._foreach_mul_(self._parameters_of_copy, 1.000001)

    return update


def shifted(f):
    return lambda *args: replace(f(*args), mean=f(*args).mean + 0.01)


def far(f):
    return lambda x: type(f(x))(*(1e6 * distance for distance in f(x)))


def darker(f):
    return lambda: f() // 2


SINGLE = network(lambda out, x: out + 0.001 * out.roll(1) * (x.dtype == torch.float32))
LEAKING = network(lambda out, x: out + 0.1 * x.mean())
BY_CHANCE = network(lambda out, x: out * (1 + 0.001 * torch.rand(())))
COARSE = network(lambda out, x: out + 0.1 * out.roll(1) * torch.is_autocast_enabled("cpu"))

BROKEN = [
    ("ᾱ_T, linear", "diffusion.schedules.linear", another_start),
    ("ᾱ_T, quadratic", "diffusion.schedules.quadratic", another_start),
    ("ᾱ_T, cosine", "diffusion.schedules.cosine", another_start),
    ("zero terminal SNR: √ᾱ_T", "diffusion.schedules.zero_terminal_snr", another_start),
    ("alpha² + sigma² = 1", "diffusion.schedules.DiscreteSchedule.level", noisier),
    (
        "q(x_t | x_t−1) composed is q(x_t | x0)",
        "evaluation.selftest.schedules.transition",
        negative,
    ),
    ("posterior mean in x0 is that in ε", "diffusion.levels.transition", negative),
    (
        "time of a log-SNR inverts the level",
        "diffusion.schedules.DiscreteSchedule.time_at",
        scaled(1.01),
    ),
    (
        "ε-prediction gives back x0 and ε",
        "diffusion.denoiser.EpsilonPrediction.coefficients",
        negative,
    ),
    ("v-prediction gives back x0 and ε", "diffusion.denoiser.VPrediction.coefficients", negative),
    ("EDM's F gives back x0 and ε", "diffusion.denoiser.EDMPrediction.coefficients", negative),
    (
        "Philox: wrong words of 12 published ones",
        "evaluation.selftest.randomness.philox",
        scaled(2),
    ),
    ("Philox: wrong words of 4000", "evaluation.selftest.randomness.philox", scaled(2)),
    ("normals as in release 0.1", "diffusion.noise.Noise.normal", scaled(1.001)),
    ("normals' fourth moment", "diffusion.noise.Noise.normal", scaled(1.1)),
    ("uniforms as in release 0.1", "diffusion.noise.Noise.uniform", scaled(1.00001)),
    (
        "DDIM, 50 steps: variance / data's",
        "diffusion.schedules.NoiseSchedule.grid",
        ends_at_the_first_level,
    ),
    (
        "DDIM, 50 steps: the moment recursion",
        "diffusion.schedules.NoiseSchedule.grid",
        ends_at_the_first_level,
    ),
    (
        "ancestral β̃, 250 steps: variance / data's",
        "diffusion.samplers.stochastic.reverse_variance",
        scaled(1.1),
    ),
    (
        "optimal variance: exact marginal",
        "diffusion.samplers.stochastic.reverse_variance",
        scaled(1.01),
    ),
    (
        "DDIM with η = 1 is ancestral β̃",
        "diffusion.samplers.stochastic.posterior_variance",
        scaled(1.01),
    ),
    ("DDIM: order of convergence", "diffusion.samplers.DDIM.step", scaled(1.0001)),
    ("Heun: order of convergence", "diffusion.samplers.ode.Heun.step", of_first_order),
    (
        "DPM-Solver++ 2M: order of convergence",
        "diffusion.samplers.multistep.DPMSolver.step",
        of_first_order,
    ),
    ("UniPC: order of convergence", "diffusion.samplers.multistep.UniPC.step", of_first_order),
    (
        "adaptive ODE: error at tolerance 1e-5",
        "diffusion.samplers.ode.AdaptiveODE.step",
        of_first_order,
    ),
    (
        "DDIM, 20,000 float32 pixels: variance, z",
        "diffusion.noise.Noise.normal",
        scaled(1.05),
    ),
    (
        "flow: f(x) = x at the clean end, exactly",
        "diffusion.denoiser.FlowPrediction.coefficients",
        negative,
    ),
    (
        "EDM, exact f, steps 1: variance / data's",
        "diffusion.samplers.Consistency.step",
        scaled(1.0001),
    ),
    (
        "cosine: slope of the loss at its minimiser",
        "diffusion.consistency.ConsistencyLoss.loss",
        lambda f: lambda self, x, n, path: f(self, x, n._replace(x0=n.x0 * 1.0001), path),
    ),
    (
        "flow, limit of the stages: variance / data's",
        "diffusion.consistency.ConsistencyLoss.closer",
        lambda f: lambda self, schedule, t: f(self.at(5), schedule, t),
    ),
    (
        "bound with the optimal variance is H(x0), nats",
        "evaluation.selftest.samplers.step_term",
        scaled(1.0001),
    ),
    (
        "the decoder's 256 masses sum to 1",
        "evaluation.selftest.samplers.pixel_log_likelihood",
        scaled(1.000001),
    ),
    (
        "s = 1 is the conditional prediction, exactly",
        "evaluation.selftest.samplers.extrapolated",
        w_for_s,
    ),
    (
        "s = 0 is the unconditional prediction, exactly",
        "evaluation.selftest.samplers.extrapolated",
        w_for_s,
    ),
    (
        "s = 3 is 3·conditional − 2·unconditional",
        "evaluation.selftest.samplers.extrapolated",
        w_for_s,
    ),
    ("DDPM's CIFAR-10 U-Net: parameters", "networks.unet.UNet.__init__", wider),
    ("1M U-Net: parameters", "networks.unet.UNet.__init__", wider),
    ("Stable Diffusion 1.5's U-Net: parameters", "networks.unet.UNet.__init__", wider),
    (
        "U-Net with transformers: output's rms",
        "networks.transformer.F.gelu",
        lambda f: lambda x: f(x, approximate="tanh"),
    ),
    (
        "s = 3 is 3·caption − 2·negative caption",
        "evaluation.selftest.samplers.TextConditioner.forward",
        lambda f: lambda self, batch, keep: f(self, {"caption": batch["caption"]}, keep),
    ),
    (
        "an empty negative caption is the null condition",
        "models.diffusion.extrapolated",
        w_for_s,
    ),
    (
        "decoding in strips: error",
        "networks.autoencoders.strips.Rows.strips",
        lambda f: lambda self, number, around: f(self, number, 0),
    ),
    ("DiT-S/2: parameters", "networks.dit.DiT.__init__", deeper),
    ("first output of a DiT", "networks.dit.DiT.forward", network(lambda out, x: out + 1e-9)),
    (
        "first loss of a fresh U-Net",
        "networks.unet.UNet.forward",
        network(lambda out, x: out + 0.5),
    ),
    ("U-Net, float64 on the CPU: output's rms", "networks.unet.UNet.forward", scaled(1.0001)),
    ("U-Net, float32: relative error of outputs", "networks.unet.UNet.forward", SINGLE),
    ("U-Net, float32: relative error of gradients", "networks.unet.UNet.forward", SINGLE),
    ("U-Net, bf16 autocast: relative error", "networks.unet.UNet.forward", COARSE),
    (
        "attention, float32: greatest error",
        "networks.blocks.F.scaled_dot_product_attention",
        unscaled,
    ),
    ("gradients that differ when repeated", "networks.unet.UNet.forward", BY_CHANCE),
    ("pictures in batches of 1 and of 8", "networks.unet.UNet.forward", LEAKING),
    (
        "loss after 20 steps on one batch / before",
        "evaluation.selftest.networks.torch.optim.Adam.step",
        nothing,
    ),
    ("average of weights: error", "models.ema.EMA.update", drifting),
    ("average of weights that stand still: drifted", "models.ema.EMA.update", drifting),
    (
        "Stable Diffusion's autoencoder: parameters",
        "networks.autoencoders.KLAutoencoder.__init__",
        wider,
    ),
    (
        "KL to N(0, I): relative error",
        "evaluation.selftest.autoencoders.Posterior",
        lambda f: lambda mean, logvar: f(mean, logvar * 1.001),
    ),
    (
        "codes of an FSQ that differ",
        "networks.autoencoders.FSQ.vectors_of",
        lambda f: lambda self, codes: f(self, codes // 2),
    ),
    (
        "latents that an FSQ's codes do not say",
        "networks.autoencoders.FSQ.vectors_of",
        lambda f: lambda self, codes: f(self, codes).flip(1),
    ),
    (
        "gradient through a codebook: error",
        "networks.autoencoders.quantizers.straight_through",
        lambda f: lambda z, quantized: f(z * 1.01, quantized),
    ),
    (
        "share of dead codes that come alive",
        "networks.autoencoders.Codebook.learn",
        lambda f: lambda self, statistics, candidates: f(self, statistics, candidates[:0]),
    ),
    (
        "adaptive weight of linear losses",
        "evaluation.selftest.autoencoders.adaptive_weight",
        scaled(1.001),
    ),
    (
        "logistic masses of 256 levels",
        "evaluation.selftest.families.level_log_probability",
        scaled(1.000001),
    ),
    (
        "linear VAE: variance / what PCA leaves",
        "models.vae.level_log_probability",
        lambda f: lambda x, mean, scale, log_cdf: f(x, mean, 1.1 * scale, log_cdf),
    ),
    (
        "TarFlow: error of the inverse",
        "networks.flows.AutoregressiveBlock.decode",
        lambda f: lambda self, z, vector: f(self, z * 1.001, vector),
    ),
    (
        "TarFlow: ln |det|, error in nats",
        "networks.flows.AutoregressiveBlock.encode",
        lambda f: lambda self, x, vector: (f(self, x, vector)[0], f(self, x, vector)[1] * 1.001),
    ),
    (
        "RealNVP: ln |det|, error in nats",
        "networks.flows.Coupling.encode",
        lambda f: lambda self, x, vector: (f(self, x * 1.001, vector)[0], f(self, x, vector)[1]),
    ),
    (
        "RealNVP: bits/dim before training",
        "models.flow.dequantised",
        scaled(1.1),
    ),
    (
        "relativistic loss of equal scores",
        "evaluation.selftest.families.relativistic",
        scaled(1.001),
    ),
    (
        "one of length 0.10 put together",
        "evaluation.selftest.averages.combination",
        lambda f: lambda kept, wanted: f(kept, wanted._replace(length=wanted.length * 1.1)),
    ),
    (
        "Fréchet distance of two known Gaussians",
        "evaluation.metrics.frechet_distance",
        scaled(1.01),
    ),
    ("Fréchet distance of a set from itself", "evaluation.metrics.moments_of_sums", shifted),
    ("kernel distance of two points", "evaluation.distances.kernel", scaled(2)),
    ("precision, half of a set far away", "evaluation.reference.surroundings", far),
    ("memorised, half of a set copied", "evaluation.reference.surroundings", far),
    (
        "garments: rms of features, weights by digest",
        "evaluation.extractors.domain.file_digest",
        nothing,
    ),
    (
        "sprites: rms of features, weights by digest",
        "evaluation.selftest.metrics.pictures",
        darker,
    ),
]


@pytest.mark.parametrize(("name", "target", "wrong"), BROKEN, ids=[name for name, *_ in BROKEN])
def test_fails_where_something_is_wrong(name, target, wrong, monkeypatch):
    monkeypatch.setattr(f"unnoise.{target}", wrong(resolve_name(f"unnoise.{target}")))
    assert not outcome(name).passed


def test_every_group_is_broken_somewhere():
    groups = {check.group for check in CHECKS.values()}
    assert groups == {CHECKS[name].group for name, *_ in BROKEN}
