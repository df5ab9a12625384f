"""Prediction kinds are one process written three ways; thresholds."""

import pytest
import torch

from unnoise.diffusion import schedules
from unnoise.diffusion.denoiser import (
    Clip,
    Denoiser,
    DynamicThreshold,
    EDMPrediction,
    EpsilonPrediction,
    FlowPrediction,
    VPrediction,
    X0Prediction,
    thresholded,
)
from unnoise.diffusion.levels import diffuse
from unnoise.diffusion.schedules import EDMSchedule, RectifiedFlow

SCHEDULE = schedules.linear()


class Tells(torch.nn.Module):
    """A network whose output is given, which records what it was shown."""

    def __init__(self, output):
        super().__init__()
        self.output = output

    def forward(self, x, t, condition):
        self.seen = x, t, condition
        return self.output


def noised(t):
    generator = torch.Generator().manual_seed(1)
    x0, eps = torch.randn(2, len(t), 3, 4, 4, dtype=torch.float64, generator=generator)
    level = SCHEDULE.level(t)
    return x0, eps, level, diffuse(x0, eps, level)


def target(prediction, x0, eps, level):
    alpha, sigma = level.like(x0)
    return {
        EpsilonPrediction: eps,
        X0Prediction: x0,
        VPrediction: alpha * eps - sigma * x0,
        FlowPrediction: eps - x0,
        EDMPrediction: (sigma * x0 - alpha * 0.25 * eps) / (0.5 * (sigma**2 + alpha**2 / 4).sqrt()),
    }[type(prediction)]


PREDICTIONS = [
    EpsilonPrediction(),
    X0Prediction(),
    VPrediction(),
    FlowPrediction(),
    EDMPrediction(sigma_data=0.5),
]


@pytest.mark.parametrize("prediction", PREDICTIONS, ids=lambda p: type(p).__name__)
def test_a_perfect_network_gives_back_picture_and_noise(prediction):
    """x0, ε and v round trips, 1e-10."""
    x0, eps, level, x_t = noised(torch.tensor([1, 10, 500, 999]))
    denoised = Denoiser(Tells(target(prediction, x0, eps, level)), prediction)(x_t, level)
    torch.testing.assert_close(denoised.x0, x0, rtol=0, atol=1e-10)
    torch.testing.assert_close(denoised.eps, eps, rtol=0, atol=1e-10)


@pytest.mark.parametrize("prediction", PREDICTIONS, ids=lambda p: type(p).__name__)
def test_the_two_predictions_always_explain_x_t(prediction):
    _, _, level, x_t = noised(torch.tensor([5, 100, 900]))
    denoised = Denoiser(Tells(torch.randn_like(x_t)), prediction)(x_t, level)
    torch.testing.assert_close(diffuse(denoised.x0, denoised.eps, level), x_t, rtol=0, atol=1e-10)


def test_network_is_told_t_and_the_condition():
    network = Tells(torch.zeros(3, 2))
    x = torch.randn(3, 2)
    Denoiser(network, EpsilonPrediction())(x, SCHEDULE.level(torch.tensor(7)), "condition")
    assert torch.equal(network.seen[0], x)
    assert network.seen[1].tolist() == [7.0] * 3
    assert network.seen[2] == "condition"


def test_scalings_stay_in_float32_under_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        network = Tells(torch.ones(3, 2, dtype=torch.bfloat16))
        denoised = Denoiser(network, VPrediction())(
            torch.randn(3, 2), SCHEDULE.level(torch.tensor([1, 2, 3]))
        )
    assert denoised.x0.dtype == denoised.eps.dtype == torch.float32


def test_clip_and_dynamic_threshold():
    x0 = torch.tensor([[-3.0, 0.5, 1.0, 2.0], [-0.5, 0.1, 0.2, 0.9]])
    assert torch.equal(Clip()(x0), x0.clamp(-1, 1))
    dynamic = DynamicThreshold(quantile=1.0)(x0)
    torch.testing.assert_close(dynamic[0], x0[0] / 3)
    assert torch.equal(dynamic[1], x0[1])
    half = DynamicThreshold(quantile=0.5)(x0)[0]
    torch.testing.assert_close(half, x0[0].clamp(-1.5, 1.5) / 1.5)


def test_thresholded_prediction_still_explains_x_t():
    _, _, level, x_t = noised(torch.tensor([50, 500]))
    denoiser = Denoiser(Tells(torch.randn_like(x_t)), EpsilonPrediction())
    denoised = thresholded(denoiser, Clip())(x_t, level)
    assert denoised.x0.abs().max() <= 1
    torch.testing.assert_close(diffuse(denoised.x0, denoised.eps, level), x_t, rtol=0, atol=1e-10)


@pytest.mark.parametrize("schedule", [SCHEDULE, RectifiedFlow(), EDMSchedule()])
def test_edm_shows_and_asks_the_network_for_unit_variance(schedule):
    """Of data with standard deviation sigma_data, at every level: from the coefficients."""
    level = schedule.level(torch.linspace(*schedule.ends, 50, dtype=torch.float64))
    alpha, sigma = level.alpha, level.sigma
    skip, out, inp = EDMPrediction(sigma_data=0.3).coefficients(alpha, sigma)
    one = torch.ones_like(alpha)
    torch.testing.assert_close(inp**2 * (alpha**2 * 0.3**2 + sigma**2), one)
    asked = ((1 - skip * alpha) ** 2 * 0.3**2 + (skip * sigma) ** 2) / out**2
    torch.testing.assert_close(asked, one)


def test_edm_coefficients_are_the_papers_at_alpha_one():
    """Table 1: c_skip, c_out and c_in at a few sigma."""
    sigma = torch.tensor([0.002, 0.5, 80.0], dtype=torch.float64)
    skip, out, inp = EDMPrediction(0.5).coefficients(torch.ones_like(sigma), sigma)
    torch.testing.assert_close(skip, 0.25 / (sigma**2 + 0.25))
    torch.testing.assert_close(out, sigma * 0.5 / (0.25 + sigma**2).sqrt())
    torch.testing.assert_close(inp, 1 / (0.25 + sigma**2).sqrt())


@pytest.mark.parametrize("prediction", [X0Prediction(), VPrediction(), FlowPrediction()])
def test_predictions_are_finite_and_explain_x_t_in_pure_noise(prediction):
    level = RectifiedFlow().level(torch.tensor(1.0))
    x_t = torch.randn(2, 3, dtype=torch.float64)
    denoised = Denoiser(Tells(torch.randn_like(x_t)), prediction)(x_t, level)
    torch.testing.assert_close(denoised.eps, x_t, rtol=0, atol=1e-12)
    assert bool(denoised.x0.isfinite().all())


@pytest.mark.parametrize("prediction", PREDICTIONS, ids=lambda p: type(p).__name__)
def test_learned_variance_is_the_other_half_of_the_output(prediction):
    """The first half means what it does alone; −1 … 1 of the second is the fraction 0 … 1."""
    _, _, level, x_t = noised(torch.tensor([5, 900]))
    output = torch.randn_like(x_t)
    spread = torch.linspace(-1, 1, 2 * 48, dtype=torch.float64).view_as(x_t)
    alone = Denoiser(Tells(output), prediction)(x_t, level)
    learned = Denoiser(Tells(torch.cat((output, spread), 1)), prediction, learned_variance=True)
    denoised = learned(x_t, level)
    assert torch.equal(denoised.x0, alone.x0)
    assert torch.equal(denoised.eps, alone.eps)
    assert alone.variance_fraction is None
    expected = torch.linspace(0, 1, 2 * 48, dtype=torch.float64).view_as(x_t)
    torch.testing.assert_close(denoised.variance_fraction, expected)
    assert torch.equal(denoised.rows(slice(1, 2)).variance_fraction, denoised.variance_fraction[1:])
