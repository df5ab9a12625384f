"""Inpainting against Gaussians whose conditionals are known."""

import math
from itertools import pairwise

import pytest
import torch

from unnoise.diffusion import schedules
from unnoise.diffusion.denoiser import Clip, Denoised
from unnoise.diffusion.editing import Inpaint, Inpainting
from unnoise.diffusion.levels import transition
from unnoise.diffusion.noise import Noise
from unnoise.diffusion.oracle import GaussianOracle
from unnoise.diffusion.samplers import (
    DDIM,
    Ancestral,
    AnnealedLangevin,
    DPMSolver,
    EulerMaruyama,
    Heun,
    PredictorCorrector,
    Sampler,
    UniPC,
    Walk,
    sample,
)
from unnoise.diffusion.schedules import EDMSchedule, RectifiedFlow

LINEAR = schedules.linear()
SCHEDULES = [LINEAR, schedules.zero_terminal_snr(LINEAR), EDMSchedule(), RectifiedFlow()]
COVARIANCE = 0.09 * torch.tensor([[1.0, 0.9], [0.9, 1.0]], dtype=torch.float64)


class CorrelatedOracle:
    """Denoise for pictures (B, 1, 1, 2) of N(0, COVARIANCE)."""

    def __call__(self, x, level):
        alpha, sigma = level.alpha, level.sigma
        total = alpha**2 * COVARIANCE + sigma**2 * torch.eye(2, dtype=torch.float64)
        eps = sigma * (x.double() @ torch.linalg.inv(total))
        return Denoised((x - sigma * eps) / alpha, eps)


def mean_painted(resample, known):
    """The mean of pixel 1 where pixel 0 is known: what comes of no noise, as x is affine in it."""
    image = torch.tensor([[[[known, 0.0]]]], dtype=torch.float64)
    stepper = Inpainting(Ancestral("posterior"), image, torch.tensor([[[[False, True]]]]), resample)
    zero = torch.zeros_like(image)
    walk = Walk(CorrelatedOracle(), LINEAR, lambda: zero)
    x = sample(walk, stepper, LINEAR.grid(100), zero)
    assert x[..., 0] == known
    return x[..., 1].item()


def test_resampling_brings_the_mean_of_the_exact_conditional():
    """ρ·a, of which replacement alone misses a third."""
    a, rho = 0.6, 0.9
    errors = [abs(mean_painted(resample, a) / (rho * a) - 1) for resample in (1, 3, 10)]
    assert errors[0] > 0.25
    assert all(more < less / 2 for less, more in pairwise(errors)), errors
    assert errors[-1] < 0.05


@pytest.mark.parametrize("resample", [1, 2])
def test_known_pixels_are_as_noisy_as_the_level_reached(resample):
    """N(alpha_s·known, sigma_s²), of the step's own draw or the last of those taken again."""
    n, known = 20_000, 0.6
    image, mask = picture(known, n), torch.tensor([[[[True, False], [False, True]]]])
    now, to = LINEAR.grid(10)[4:6]
    walk = Walk(GaussianOracle(), LINEAR, Noise(0, torch.arange(n)).normals("z", (1, 2, 2)))
    stepper = Inpainting(DDIM(), image, mask, resample)
    x = stepper.step(walk, torch.zeros_like(image), now, to)[~mask.expand_as(image)]
    assert abs(x.mean() - to.alpha * known) < 4 * to.sigma / math.sqrt(2 * n)
    assert abs(x.var() / to.sigma**2 - 1) < 4 * math.sqrt(2 / (2 * n))


def test_noise_leads_back_before_a_step_is_taken_again():
    """From x_s to N(scale·x_s, variance), which the second step is given."""
    given = []

    class Kept(DDIM):
        def step(self, walk, x, now, to):
            given.append(x)
            return torch.zeros_like(x)

    n, everywhere = 20_000, torch.ones(1, 1, 2, 2, dtype=torch.bool)
    now, to = LINEAR.grid(10)[4:6]
    walk = Walk(GaussianOracle(), LINEAR, Noise(0, torch.arange(n)).normals("z", (1, 2, 2)))
    Inpainting(Kept(), picture(0.0, n), everywhere, 2).step(walk, picture(9.0, n), now, to)
    variance = transition(to, now)[1]
    assert abs(given[1].var() / variance - 1) < 4 * math.sqrt(2 / (4 * n))


STEPPERS = {
    "ddim": DDIM(),
    "ancestral": Ancestral("posterior"),
    "heun": Heun(),
    "dpm_solver": DPMSolver(),
    "dpm_solver_sde": DPMSolver(1.0),
    "unipc": UniPC(),
    "euler_maruyama": EulerMaruyama(),
    "annealed_langevin": AnnealedLangevin(),
    "predictor_corrector": PredictorCorrector(EulerMaruyama()),
}


@pytest.mark.parametrize("stepper", STEPPERS.values(), ids=STEPPERS)
def test_every_stepper_paints_what_goes_with_the_rest(stepper):
    """N(ρ·a, 0.09·(1 − ρ²)), the exact conditional."""
    a, rho, n = 0.6, 0.9, 2000
    edit = Inpaint(torch.tensor([[[[a, 0.0]]]]), torch.tensor([[[[False, True]]]]), resample=10)
    sampler, noise = Sampler(stepper, 60, "log_snr"), Noise(0, torch.arange(n))
    x = edit(sampler, CorrelatedOracle(), LINEAR, noise)[..., 1]
    assert x.mean() == pytest.approx(rho * a, rel=0.07)
    assert x.std() == pytest.approx(0.3 * math.sqrt(1 - rho**2), rel=0.1)


def picture(value, n=1):
    return torch.full((n, 1, 2, 2), value)


def test_known_pixels_are_exact_and_others_are_drawn():
    image = torch.stack([picture(0.77)[0], picture(-0.4)[0]])
    mask = torch.tensor([[[[True, False], [False, True]]]])
    sampler = Sampler(Ancestral("beta"), steps=10, threshold=Clip())
    x = Inpaint(image, mask, resample=3)(
        sampler, GaussianOracle(), LINEAR, Noise(0, torch.arange(5))
    )
    known = ~mask.expand_as(x)
    expected = image[[0, 1, 0, 1, 0]]
    assert torch.equal(x[known], expected[known])
    assert (x[~known] - expected[~known]).abs().min() > 0


def test_a_mask_everywhere_with_one_pass_is_the_sampler_itself():
    sampler = Sampler(DDIM(), steps=10)
    noise = Noise(0, torch.arange(3))
    plain = sampler(GaussianOracle(), LINEAR, (1, 2, 2), noise)
    everything = torch.ones(1, 1, 2, 2, dtype=torch.bool)
    x = Inpaint(picture(0.9), everything)(sampler, GaussianOracle(), LINEAR, noise)
    assert torch.equal(x, plain)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("stepper", [DDIM(), Heun(), DPMSolver(eta=1.0)])
def test_any_stepper_paints_on_any_schedule(stepper, schedule):
    """Where half is known of independent pixels, the other half is drawn from the prior."""
    oracle, n = GaussianOracle(), 4000
    mask = torch.tensor([[[[True, False], [False, True]]]])
    edit = Inpaint(picture(0.9), mask, resample=2)
    x = edit(
        Sampler(stepper, steps=30, spacing="log_snr"), oracle, schedule, Noise(0, torch.arange(n))
    )
    painted = x[mask.expand_as(x)]
    assert (x[~mask.expand_as(x)] == 0.9).all()
    assert painted.mean() == pytest.approx(oracle.mu, abs=0.02)
    assert painted.std() == pytest.approx(oracle.s, rel=0.15)


def test_going_back_forgets_what_a_step_left_for_the_next():
    seen = []

    class Remembering(DDIM):
        def step(self, walk, x, now, to):
            seen.append(walk.memory)
            walk.memory = "of the last step"
            return super().step(walk, x, now, to)

    mask = torch.ones(1, 1, 2, 2, dtype=torch.bool)
    for resample, expected in ((1, [None, "of the last step"]), (2, [None, None])):
        seen.clear()
        Inpaint(picture(0.0), mask, resample)(
            Sampler(Remembering(), steps=2), GaussianOracle(), LINEAR, Noise(0, torch.arange(1))
        )
        assert seen[resample - 1 :: resample] == expected
