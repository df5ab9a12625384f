"""Image to image and interpolation of Gaussians, whose noise is known."""

import math
from itertools import pairwise

import pytest
import torch
from gaussian import GaussianMixtureOracle

from unnoise.diffusion import schedules
from unnoise.diffusion.editing import ImageToImage, Inpaint, Interpolate, encode, slerp
from unnoise.diffusion.noise import Noise
from unnoise.diffusion.oracle import GaussianOracle
from unnoise.diffusion.samplers import (
    DDIM,
    AdaptiveODE,
    Ancestral,
    Sampler,
    Walk,
    sample,
    steps_taken,
)
from unnoise.diffusion.schedules import EDMSchedule, RectifiedFlow

LINEAR = schedules.linear()
SCHEDULES = [LINEAR, schedules.zero_terminal_snr(LINEAR), EDMSchedule(), RectifiedFlow()]


def picture(value, n=1):
    return torch.full((n, 1, 2, 2), value)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_pictures_are_encoded_and_decoded_on_any_schedule(schedule):
    oracle = GaussianOracle()
    sampler = Sampler(DDIM(), steps=200, spacing="log_snr")
    first, second = (oracle.mu + oracle.s * torch.randn(2, 1, 3, 4, 4)).double()
    x = Interpolate(first, second, 2)(sampler, oracle, schedule, Noise(0, torch.arange(2)))
    torch.testing.assert_close(x, torch.cat((first, second)), rtol=0, atol=0.05)


@pytest.mark.parametrize("resample", [1, 3])
def test_picture_k_is_the_same_in_any_batch(resample):
    image = torch.rand(3, 1, 2, 2) * 2 - 1
    mask = torch.tensor([[[[True, False], [False, True]]]])
    sampler = Sampler(Ancestral("beta"), steps=8)

    def draw(edit, ids):
        return edit(sampler, GaussianMixtureOracle(), LINEAR, Noise(1, torch.tensor(ids)))

    for edit in (Inpaint(image, mask, resample), ImageToImage(image, 0.5)):
        whole = draw(edit, list(range(7)))
        torch.testing.assert_close(draw(edit, [4, 5]), whole[4:6], rtol=0, atol=1e-5)


def test_strength_says_how_far_a_picture_is_forgotten():
    """Of SDEdit from strength 1 only a trace of the start is left; a small one stays near it."""
    sampler, noise = Sampler(DDIM(), steps=50), Noise(0, torch.arange(200))

    def drawn(start, strength):
        return ImageToImage(picture(start), strength)(sampler, GaussianOracle(), LINEAR, noise)

    kept = [((drawn(0.9, s) - drawn(-0.3, s)).mean() / 1.2).item() for s in (0.02, 0.2, 0.5, 1.0)]
    assert kept[0] > 0.95
    assert all(less < more for more, less in pairwise(kept)), kept
    assert kept[-1] < 0.01
    assert (drawn(0.9, 0.02) - 0.9).abs().max() < 0.1
    plain = sampler(GaussianOracle(), LINEAR, (1, 2, 2), noise)
    assert (drawn(0.9, 1.0) - plain).abs().max() < 0.01


@pytest.mark.parametrize(
    ("steps", "strength", "taken"), [(20, 0.01, 1), (10, 0.25, 2), (5, 0.3, 2), (5, 0.7, 4)]
)
def test_a_share_of_the_steps_is_taken_and_at_least_one(steps, strength, taken):
    reached = []
    ImageToImage(picture(0.9), strength)(
        Sampler(DDIM(), steps), GaussianOracle(), LINEAR, Noise(0, torch.arange(1)),
        watch=lambda x, level: reached.append(level),
    )  # fmt: skip
    assert len(reached) == steps_taken(steps, strength) == taken


def test_slerp_keeps_the_norm_and_reaches_both_ends():
    a, b = (torch.randn(6, 3, 4, 4, dtype=torch.float64) for _ in range(2))
    b = b * (a.flatten(1).norm(dim=1) / b.flatten(1).norm(dim=1)).view(-1, 1, 1, 1)
    share = torch.tensor([0.0, 0.1, 0.3, 0.5, 0.9, 1.0], dtype=torch.float64)
    x = slerp(a, b, share)
    torch.testing.assert_close(x.flatten(1).norm(dim=1), a.flatten(1).norm(dim=1))
    torch.testing.assert_close(x[0], a[0])
    torch.testing.assert_close(x[5], b[5])
    angle = torch.cosine_similarity(a.flatten(1), b.flatten(1)).arccos()
    found = torch.cosine_similarity(a.flatten(1), x.flatten(1)).clamp(-1, 1).arccos()
    torch.testing.assert_close(found, share * angle, rtol=0, atol=1e-6)


def test_slerp_between_equal_noises_stays():
    a = torch.randn(2, 5)
    torch.testing.assert_close(slerp(a, a, torch.tensor([0.2, 0.7])), a)


def test_between_opposite_noises_slerp_has_no_way():
    a = torch.randn(2, 5)
    with pytest.raises(ValueError, match="opposite"):
        slerp(a, torch.stack((a[0], -2 * a[1])), torch.tensor([0.5, 0.5]))


def test_slerp_needs_no_float64_where_the_device_has_none(monkeypatch):
    monkeypatch.setattr("unnoise.diffusion.editing.precise", lambda x: x.float())
    monkeypatch.setattr(torch.Tensor, "double", None, raising=False)
    a, b = torch.randn(2, 4, 9)
    x = slerp(a, b, torch.tensor([0.0, 0.3, 0.6, 1.0]))
    torch.testing.assert_close(x[[0, 3]], torch.stack((a[0], b[3])))


def test_decoding_what_was_encoded_errs_by_one_over_n():
    x0, errors = torch.tensor([[-0.7], [-0.5], [0.6]], dtype=torch.float64), []
    oracle = GaussianMixtureOracle()
    for steps in (50, 100, 200, 400):
        levels = LINEAR.grid(steps)
        walk = Walk(oracle, LINEAR, lambda: None)
        decoded = sample(walk, DDIM(), levels, encode(oracle, levels, x0))
        errors.append((decoded - x0).abs().max().item())
    orders = [math.log2(a / b) for a, b in pairwise(errors)]
    assert all(0.8 < order < 1.3 for order in orders), (errors, orders)


def test_pictures_are_encoded_as_noise():
    """x_T of data from the oracle has the variance of the process there."""
    oracle = GaussianOracle()
    levels = LINEAR.grid(1000)
    x0 = torch.tensor([[oracle.mu], [oracle.mu + oracle.s]], dtype=torch.float64)
    x = encode(oracle, levels, x0)
    assert abs(x[0]).item() < 0.01
    assert (x[1] - x[0]).item() == pytest.approx(1, abs=0.02)


def test_interpolation_ends_at_its_two_pictures():
    oracle, sampler = GaussianOracle(), Sampler(DDIM(), steps=400)
    first, second = (oracle.mu + oracle.s * torch.randn(2, 1, 3, 4, 4)).double()
    edit = Interpolate(first, second, count=5)
    x = edit(sampler, oracle, LINEAR, Noise(0, torch.arange(7)))
    torch.testing.assert_close(x[0], first[0], rtol=0, atol=0.05)
    torch.testing.assert_close(x[4], second[0], rtol=0, atol=0.05)
    torch.testing.assert_close(x[5:], x[:2])
    away = (x - first).square().mean(dim=(1, 2, 3))[:5]
    assert (away.diff() > 0).all()


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Inpaint(picture(0.0), torch.ones(1, 1, 2, 2)), "the mask must be bool"),
        (lambda: Inpaint(picture(0.0), torch.ones(1, 1, 4, 2).bool()), r"\(N, 1, 2, 2\)"),
        (lambda: Inpaint(picture(0.0), torch.zeros(1, 1, 2, 2).bool()), "marks nothing"),
        (lambda: Inpaint(picture(0.0)[0, 0], torch.ones(1, 1, 2, 2).bool()), "must be float"),
        (lambda: ImageToImage(picture(0.0).byte(), 0.5), "must be float"),
        (lambda: Interpolate(picture(0.0), picture(0.0, n=2), 3), "one picture each"),
    ],
)
def test_unfit_pictures_are_refused(make, told):
    with pytest.raises(ValueError, match=told):
        make()


@pytest.mark.parametrize("stepper", [DDIM(0.5), Ancestral()])
def test_interpolation_wants_a_deterministic_sampler(stepper):
    edit = Interpolate(picture(0.0), picture(0.5), 3)
    with pytest.raises(ValueError, match="ddim with eta 0"):
        edit(Sampler(stepper), GaussianOracle(), LINEAR, Noise(0, torch.arange(3)))


@pytest.mark.parametrize(
    "edit", [Inpaint(picture(0.0), torch.ones(1, 1, 2, 2).bool()), ImageToImage(picture(0.0), 0.5)]
)
def test_an_adaptive_sampler_cannot_be_held_to_levels(edit):
    with pytest.raises(ValueError, match="adaptive_ode chooses its own levels"):
        edit(Sampler(AdaptiveODE(), 2), GaussianOracle(), LINEAR, Noise(0, torch.arange(3)))
