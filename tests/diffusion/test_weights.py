"""Each weight makes the error of its network output count the same at every level."""

import pytest
import torch

from unnoise.diffusion import schedules
from unnoise.diffusion.denoiser import (
    EDMPrediction,
    EpsilonPrediction,
    FlowPrediction,
    VPrediction,
    X0Prediction,
)
from unnoise.diffusion.schedules import EDMSchedule, RectifiedFlow
from unnoise.diffusion.weights import P2, EDMWeight, MinSNR, VelocityWeight, VWeight, X0Weight


def levels(schedule):
    return schedule.level(torch.linspace(*schedule.ends, 100, dtype=torch.float64))


@pytest.mark.parametrize(
    ("weight", "prediction", "schedule"),
    [
        (P2(gamma=0.0), EpsilonPrediction(), schedules.linear()),
        (P2(gamma=0.0), EpsilonPrediction(), EDMSchedule()),
        (VWeight(), VPrediction(), schedules.linear()),
        (VWeight(), VPrediction(), schedules.zero_terminal_snr(schedules.linear())),
        (EDMWeight(0.3), EDMPrediction(0.3), EDMSchedule()),
        (EDMWeight(0.3), EDMPrediction(0.3), schedules.linear()),
        (VelocityWeight(), FlowPrediction(), RectifiedFlow()),
        (X0Weight(), X0Prediction(), schedules.linear()),
    ],
)
def test_weight_times_out_squared_is_one(weight, prediction, schedule):
    level = levels(schedule)
    _, out, _ = prediction.coefficients(level.alpha, level.sigma)
    found = weight((level.alpha / level.sigma) ** 2) * out**2
    torch.testing.assert_close(found, torch.ones_like(found), rtol=1e-12, atol=0)


def test_min_snr_and_p2_at_known_places():
    snr = torch.tensor([0.0, 1.0, 5.0, 100.0], dtype=torch.float64)
    assert MinSNR(5.0)(snr).tolist() == [0, 1, 5, 5]
    assert P2(k=1.0, gamma=1.0)(snr).tolist() == pytest.approx([0, 1 / 2, 5 / 6, 100 / 101])


def test_p2_flattens_to_the_error_of_x0_and_is_l_simple_at_low_snr():
    snr = torch.tensor([1e-6, 1e6], dtype=torch.float64)
    assert (P2(k=1.0, gamma=1.0)(snr) / torch.tensor([1e-6, 1.0])).tolist() == pytest.approx(
        [1, 1], rel=1e-5
    )
