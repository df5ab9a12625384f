"""The forward process is shown at the levels it says, noise as noise."""

import numpy as np
import pytest
import torch

from unnoise.data.pixels import to_pixels, to_signal
from unnoise.data.sprites import Sprites
from unnoise.diffusion.noise import Noise
from unnoise.diffusion.schedules import (
    EDMSchedule,
    GeometricSchedule,
    RectifiedFlow,
    cosine,
    linear,
)
from unnoise.report.figures.forward import Schedules, log_snr, strip
from unnoise.report.sheets import grid

SCHEDULES = {
    "linear": linear(),
    "cosine": cosine(T=7),
    "edm": EDMSchedule(),
    "geometric": GeometricSchedule(),
    "flow": RectifiedFlow(),
}


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_strips_end_in_noise_that_is_seen_as_noise(schedule):
    """N(0, 1) is beyond ±1 with probability 0.3173; 5 standard deviations of 6144 samples."""
    eps = Noise(0, torch.arange(2)).normal("eps", (3, 32, 32))
    shown = strip(schedule, torch.zeros_like(eps), eps, levels=11)
    assert shown.shape == (2, 11, 3, 32, 32)
    saturated = ((shown == 0) | (shown == 255)).float().mean((0, 2, 3, 4))
    assert saturated.max() < 0.3173 + 5 * (0.3173 * 0.6827 / 6144) ** 0.5
    assert saturated[-1] > 0.25


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_each_picture_is_the_closed_form_at_equal_distances_of_time(schedule):
    x0, eps = torch.rand(1, 1, 4, 4) * 2 - 1, torch.randn(1, 1, 4, 4)
    shown = strip(schedule, x0, eps, levels=5)
    noisy, clean = schedule.ends
    for k in range(5):
        level = schedule.level(torch.tensor(clean + (noisy - clean) * k / 4, dtype=torch.float64))
        share = level.log_snr.sigmoid()
        expected = share.sqrt() * x0 + (1 - share).sqrt() * eps
        assert (shown[:, k].int() - to_pixels(expected).int()).abs().max() <= 1


def test_curves_have_the_schedules_ends():
    time, ln_snr = log_snr(EDMSchedule(sigma_min=0.01, sigma_max=100))
    assert time[[0, -1]].tolist() == [1, 0]
    torch.testing.assert_close(
        ln_snr[[0, -1]], torch.tensor([-2 * np.log(100), -2 * np.log(0.01)]), rtol=1e-9, atol=0
    )
    assert log_snr(RectifiedFlow())[1].isfinite().all()


def coloured(picture):
    return picture.max(-1) != picture.min(-1)


def test_the_figure_has_each_schedules_strip_in_its_row_with_the_same_noise():
    data, ids = Sprites(size=4, validation_size=4), torch.tensor([3])
    sheet = np.asarray(Schedules(SCHEDULES, levels=4, picture=3, seed=5).draw(data))
    x0 = to_signal(data.images("validation").read(ids))
    eps = Noise(5, ids).normal("eps", (3, 16, 16))
    rows = [
        np.asarray(grid(strip(schedule, x0, eps, 4)[0], columns=4, width=76 * 4))
        for schedule in SCHEDULES.values()
    ]
    height, width, _ = rows[0].shape
    above = np.asarray(sheet)[: -360 - 10]  # the curves of all
    left = coloured(above).any(0).argmax() - coloured(np.concatenate(rows)).any(0).argmax()
    beside = sheet[:, left : left + width]
    top = coloured(beside).any(1).argmax() - coloured(rows[0]).any(1).argmax()
    for i, row in enumerate(rows):
        start = top + i * (height + 10)
        assert np.array_equal(beside[start : start + height], row), i
    curves = sheet[top : top + height, left + width :]
    assert coloured(curves).any(), "log-SNR stands beside"
    assert coloured(sheet[start + height :]).any(), "all curves stand below"
