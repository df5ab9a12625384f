"""Whole trajectories, equal to those of diffusers' schedulers from the same noise and network."""

import diffusers
import pytest
import torch

from unnoise.diffusion import schedules
from unnoise.diffusion.denoiser import (
    Clip,
    Denoiser,
    EDMPrediction,
    EpsilonPrediction,
    FlowPrediction,
    VPrediction,
    thresholded,
)
from unnoise.diffusion.levels import CLEAN
from unnoise.diffusion.samplers import DDIM, Ancestral, DPMSolver, Euler, Heun, UniPC, Walk, sample
from unnoise.diffusion.schedules import EDMSchedule, RectifiedFlow

LINEAR = schedules.linear()
X = torch.randn(5, 2, generator=torch.Generator().manual_seed(7))
DISCRETE = {"beta_start": 1e-4, "beta_end": 0.02, "timestep_spacing": "leading"}
VARIANCES = {"fixed_small": "posterior", "fixed_large": "beta"}
KINDS = {"epsilon": EpsilonPrediction(), "v_prediction": VPrediction()}


class Toy(torch.nn.Module):
    """A nonlinear function of x and of t in 0 … 999."""

    def __init__(self, channels=2):
        super().__init__()
        self.channels = channels

    def forward(self, x, t, condition=None):
        t = t.reshape(-1, 1).to(x) / 1000
        out = 0.8 * torch.sin(2 * x + t) + 0.3 * x.flip(1) * t
        return torch.cat((out, torch.cos(x) * t), 1)[:, : self.channels]


def theirs(scheduler, x, channels=2, **options):
    """x after each step of a diffusers scheduler."""
    network, result = Toy(channels), []
    for t in scheduler.timesteps:
        output = network(scheduler.scale_model_input(x, t), t)
        x = scheduler.step(output, t, x, **options).prev_sample
        result.append(x)
    return result


def ours(stepper, denoise, schedule, levels, x):
    """x after each of our steps, with the noise that generator() draws."""
    g, result = generator(), []
    walk = Walk(denoise, schedule, lambda: torch.randn(x.shape, generator=g))
    sample(walk, stepper, levels, x, lambda x, level: result.append(x))
    return result


def generator():
    return torch.Generator().manual_seed(11)


def levels_of(scheduler):
    return [LINEAR.level(t.long()) for t in scheduler.timesteps.unique().flip(0)] + [CLEAN]


def assert_equal(found, expected):
    torch.testing.assert_close(torch.stack(found), torch.stack(expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", VARIANCES)
@pytest.mark.parametrize("steps", [20, 500])
def test_ddpm(name, kind, clip, steps):
    scheduler = diffusers.DDPMScheduler(
        **DISCRETE, variance_type=name, clip_sample=clip, prediction_type=kind
    )
    scheduler.set_timesteps(steps)
    denoise = Denoiser(Toy(), KINDS[kind])
    denoise = thresholded(denoise, Clip()) if clip else denoise
    found = ours(Ancestral(VARIANCES[name]), denoise, LINEAR, levels_of(scheduler), X)
    assert_equal(found, theirs(scheduler, X, generator=generator()))


def test_ddpm_with_learned_variance():
    scheduler = diffusers.DDPMScheduler(
        **DISCRETE, variance_type="learned_range", clip_sample=False
    )
    scheduler.set_timesteps(50)
    denoise = Denoiser(Toy(4), EpsilonPrediction(), learned_variance=True)
    found = ours(Ancestral("learned"), denoise, LINEAR, levels_of(scheduler), X)
    assert_equal(found, theirs(scheduler, X, 4, generator=generator()))


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
def test_ddim(eta, clip):
    scheduler = diffusers.DDIMScheduler(**DISCRETE, clip_sample=clip)
    scheduler.set_timesteps(20)
    denoise = Denoiser(Toy(), EpsilonPrediction())
    denoise = thresholded(denoise, Clip()) if clip else denoise
    found = ours(DDIM(eta), denoise, LINEAR, levels_of(scheduler), X)
    options = {"eta": eta, "use_clipped_model_output": True, "generator": generator()}
    assert_equal(found, theirs(scheduler, X, **options))


@pytest.mark.parametrize(
    ("stepper", "name", "stages"),
    [(Euler(), "EulerDiscreteScheduler", 1), (Heun(), "HeunDiscreteScheduler", 2)],
)
def test_solvers_in_y(stepper, name, stages):
    scheduler = getattr(diffusers, name)(**DISCRETE)
    scheduler.set_timesteps(20)
    levels = levels_of(scheduler)
    expected = theirs(scheduler, X / levels[0].alpha.float())
    expected = [*expected[stages - 1 : -1 : stages], expected[-1]]
    found = ours(stepper, Denoiser(Toy(), EpsilonPrediction()), LINEAR, levels, X)
    assert_equal([x / level.alpha for x, level in zip(found, levels[1:], strict=True)], expected)


@pytest.mark.parametrize("steps", [3, 8, 20])
@pytest.mark.parametrize(("name", "eta"), [("dpmsolver++", 0.0), ("sde-dpmsolver++", 1.0)])
def test_dpm_solver(name, eta, steps):
    scheduler = diffusers.DPMSolverMultistepScheduler(
        **DISCRETE, algorithm_type=name, solver_order=2, solver_type="midpoint"
    )
    scheduler.set_timesteps(steps)
    denoise = Denoiser(Toy(), EpsilonPrediction())
    found = ours(DPMSolver(eta), denoise, LINEAR, levels_of(scheduler), X)
    assert_equal(found, theirs(scheduler, X, generator=generator()))


@pytest.mark.parametrize("steps", [2, 3, 8, 20])
def test_unipc(steps):
    scheduler = diffusers.UniPCMultistepScheduler(
        **DISCRETE, solver_order=2, solver_type="bh2", final_sigmas_type="zero"
    )
    scheduler.set_timesteps(steps)
    denoise = Denoiser(Toy(), EpsilonPrediction())
    found = ours(UniPC(), denoise, LINEAR, levels_of(scheduler), X)
    assert_equal(found, theirs(scheduler, X))


def test_flow_with_eulers_steps():
    flow = RectifiedFlow()
    levels = flow.grid(20)
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=[level.sigma.item() for level in levels[:-1]])
    scheduler.scale_model_input = lambda x, t: x
    found = ours(Euler(), Denoiser(Toy(), FlowPrediction()), flow, levels, X)
    assert_equal(found, theirs(scheduler, X))


@pytest.mark.parametrize(
    ("stepper", "name", "options"),
    [
        (Euler(), "EDMEulerScheduler", {}),
        (DPMSolver(), "EDMDPMSolverMultistepScheduler", {"solver_type": "midpoint"}),
        (
            DPMSolver(1.0),
            "EDMDPMSolverMultistepScheduler",
            {"solver_type": "midpoint", "algorithm_type": "sde-dpmsolver++"},
        ),
    ],
)
def test_edm_with_its_preconditioning_and_its_levels(stepper, name, options):
    edm = EDMSchedule()
    scheduler = getattr(diffusers, name)(sigma_min=0.002, sigma_max=80.0, sigma_data=0.5, **options)
    scheduler.set_timesteps(20)
    scheduler.timesteps = scheduler.timesteps * 1000  # our network is told 1000·c_noise
    denoise = Denoiser(Toy(), EDMPrediction())
    found = ours(stepper, denoise, edm, edm.grid(20, "karras"), 80 * X)
    assert_equal(found, theirs(scheduler, 80 * X, generator=generator()))
