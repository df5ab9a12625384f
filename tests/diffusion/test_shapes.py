"""Sounds (C, L) and videos (C, T, H, W): what holds of flat vectors holds of any shape.

The oracles treat every element alike, and the noise of a sample is one long row of numbers. So
what is drawn or computed in a shape must be that of the flat row, whose closed forms other tests
know.
"""

import math

import pytest
import torch
from gaussian import GaussianMixtureOracle
from test_every_sampler import ADAPTIVE, FIXED, every

from unnoise.diffusion import schedules
from unnoise.diffusion.denoiser import Clip, Denoiser, DynamicThreshold, EpsilonPrediction
from unnoise.diffusion.editing import ImageToImage, Inpaint, Interpolate
from unnoise.diffusion.likelihood import bound, ode_bits_per_dim
from unnoise.diffusion.noise import Noise
from unnoise.diffusion.objectives import HybridLoss, SimpleLoss, VariationalBound, WeightedLoss
from unnoise.diffusion.oracle import GaussianOracle
from unnoise.diffusion.samplers import DDIM, AdaptiveODE, Ancestral, Sampler
from unnoise.diffusion.weights import MinSNR

LINEAR, ORACLE = schedules.linear(), GaussianOracle()
FLAT, SOUND, VIDEO = (24,), (2, 12), (1, 2, 3, 4)
in_shape = pytest.mark.parametrize("shape", [SOUND, VIDEO], ids=["sound", "video"])


def data(shape, n=2):
    """x0 of the oracle's Gaussian: the same numbers in any shape."""
    return ORACLE.mu + ORACLE.s * Noise(7, torch.arange(n)).normal("data", shape)


class Network(torch.nn.Module):
    """ε* of the Gaussian oracle, and a learned variance in the middle where ``learned``."""

    def __init__(self, learned=False):
        super().__init__()
        self.learned = learned

    def forward(self, x, t, condition):
        eps = ORACLE(x, LINEAR.level(t.long())).eps
        return torch.cat((eps, torch.zeros_like(eps)), dim=1) if self.learned else eps


@in_shape
@every(FIXED | ADAPTIVE)
def test_samples_have_the_moments_of_the_data(stepper, shape):
    n = 400
    steps = 2 if isinstance(stepper, AdaptiveODE) else 120
    sampler, noise = Sampler(stepper, steps, "log_snr"), Noise(0, torch.arange(n))
    x = sampler(ORACLE, LINEAR, shape, noise)
    assert x.shape == (n, *shape)
    assert x.mean().item() == pytest.approx(ORACLE.mu, abs=0.02)
    assert x.std().item() == pytest.approx(ORACLE.s, rel=0.08)
    flat = sampler(ORACLE, LINEAR, FLAT, noise)
    torch.testing.assert_close(x.flatten(1), flat, rtol=0, atol=1e-5)


@in_shape
@pytest.mark.parametrize("threshold", [Clip(), DynamicThreshold(0.9)])
def test_thresholds_are_those_of_the_whole_sample(shape, threshold):
    sampler, noise = Sampler(DDIM(), 10, threshold=threshold), Noise(0, torch.arange(5))
    oracle = GaussianMixtureOracle(means=(-2.0, 2.0))
    x, flat = (sampler(oracle, LINEAR, each, noise).flatten(1) for each in (shape, FLAT))
    torch.testing.assert_close(x, flat, rtol=0, atol=1e-6)
    assert x.abs().max() <= 1


@in_shape
@pytest.mark.parametrize(
    "objective",
    [SimpleLoss(), WeightedLoss(MinSNR()), VariationalBound(), HybridLoss()],
    ids=lambda objective: type(objective).__name__,
)
def test_losses_of_a_shape_are_those_of_the_flat_row(objective, shape):
    n, learned = 300, objective.trains_variance
    noise, u = Noise(3, torch.arange(n)), torch.rand(n, generator=torch.Generator().manual_seed(0))
    denoiser = Denoiser(Network(learned), EpsilonPrediction(), learned)
    losses = objective(denoiser, LINEAR, data(shape, n), u, None, noise)
    flat = objective(denoiser, LINEAR, data(FLAT, n), u, None, noise)
    assert losses.shape == (n,)
    torch.testing.assert_close(losses, flat, rtol=1e-4, atol=1e-6)


@in_shape
def test_the_best_network_reaches_the_known_least_loss(shape):
    n = 2000
    u = torch.rand(n, generator=torch.Generator().manual_seed(0))
    denoiser = Denoiser(Network(), EpsilonPrediction())
    loss = SimpleLoss()(denoiser, LINEAR, data(shape, n), u, None, Noise(3, torch.arange(n)))
    level = LINEAR.level(LINEAR.sample_times(u))
    signal = level.alpha**2 * ORACLE.s**2
    z = (loss / (signal / (signal + level.sigma**2)) - 1) / math.sqrt(2 / 24)
    assert abs(z.mean()) < 4 / math.sqrt(n)


@in_shape
def test_likelihoods_of_a_shape_are_those_of_the_flat_row(shape):
    x0, levels, noise = data(shape), LINEAR.grid(20), Noise(1, torch.arange(2))
    terms = bound(ORACLE, levels, x0, noise, "posterior")
    for one, other in zip(
        terms, bound(ORACLE, levels, data(FLAT), noise, "posterior"), strict=True
    ):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(
        ode_bits_per_dim(ORACLE, LINEAR, x0, noise),
        ode_bits_per_dim(ORACLE, LINEAR, data(FLAT), noise),
        rtol=1e-4,
        atol=1e-4,
    )


@in_shape
@every(FIXED)
def test_inpainting_keeps_the_known_part_exactly(stepper, shape):
    """A gap in time: the last half of the last axis is painted, in all channels."""
    n, known = 200, data(shape, 3)
    mask = torch.zeros(1, 1, *shape[1:], dtype=torch.bool)
    mask[..., shape[-1] // 2 :] = True
    x = Inpaint(known, mask)(
        Sampler(stepper, 60, "log_snr"), ORACLE, LINEAR, Noise(0, torch.arange(n))
    )
    everywhere = mask.expand(x.shape)
    assert torch.equal(x[~everywhere], known[torch.arange(n) % 3][~everywhere])
    assert x[everywhere].mean().item() == pytest.approx(ORACLE.mu, abs=0.04)
    assert x[everywhere].std().item() == pytest.approx(ORACLE.s, rel=0.15)


@in_shape
def test_pictures_are_not_the_only_thing_to_start_from(shape):
    first, second = data(shape, 2).double().split(1)
    sampler, noise = Sampler(DDIM(), 200, "log_snr"), Noise(0, torch.arange(50))
    between = Interpolate(first, second, 3)(sampler, ORACLE, LINEAR, Noise(0, torch.arange(3)))
    torch.testing.assert_close(between[::2], torch.cat((first, second)), rtol=0, atol=0.05)
    noised, flat = (
        ImageToImage(data(each), 0.3)(Sampler(Ancestral("posterior"), 20), ORACLE, LINEAR, noise)
        for each in (shape, (1, 24))
    )
    assert noised.shape == (50, *shape)
    torch.testing.assert_close(noised.flatten(1), flat.flatten(1), rtol=0, atol=1e-6)


@in_shape
def test_a_mask_marks_places_not_channels(shape):
    x0 = data(shape)
    with pytest.raises(ValueError, match=r"the mask must be bool \(N, 1, "):
        Inpaint(x0, torch.ones(1, *shape, dtype=torch.bool)[..., :1])
    with pytest.raises(ValueError, match="marks nothing"):
        Inpaint(x0, torch.zeros(1, 1, *shape[1:], dtype=torch.bool))
