"""Training times: every way of drawing them gives the same mean, with less variance or more."""

import math

import pytest
import torch

from unnoise.diffusion.noise import Noise
from unnoise.diffusion.times import LossSecondMomentTimes, StratifiedTimes, UniformTimes

N = 100_000
NOISE = Noise(0, torch.arange(N))


def skewed(u):
    """A loss like the bound's: most of it at a few levels; its integral over [0, 1] is 1 + 0.5."""
    return torch.exp(-u.double() / 0.01) * 100 + 0.5


def trained(bins=100, history=10):
    """Importance times that have seen the skewed loss everywhere."""
    times = LossSecondMomentTimes(bins, history)
    u = (torch.arange(bins * history * 3) + 0.5) / (bins * history * 3)
    times.observe(u, skewed(u))
    return times


@pytest.mark.parametrize("times", [UniformTimes(), StratifiedTimes(64), trained()])
def test_the_weighted_mean_is_the_integral(times):
    u, weight = times.draw(NOISE)
    assert bool(((u >= 0) & (u < 1)).all())
    for f, integral in ((skewed, 1.5), (lambda u: u.double() ** 2, 1 / 3)):
        values = (weight * f(u)).double()
        assert abs(values.mean() - integral) < 4 * values.std() / math.sqrt(N)


@pytest.mark.parametrize("times", [StratifiedTimes(64), trained()])
def test_the_mean_loss_of_a_batch_varies_less_than_with_uniform_times(times):
    def variance(times):
        u, weight = times.draw(NOISE)
        batches = (weight * skewed(u))[: N // 64 * 64].view(-1, 64).mean(1)
        return batches.var()

    assert variance(times) < 0.5 * variance(UniformTimes())


def test_every_stratum_is_drawn_once_in_any_run_of_consecutive_places():
    for first in (0, 8, 13):
        u, _ = StratifiedTimes(8).draw(Noise(0, torch.arange(first, first + 8)))
        assert sorted((u * 8).long().tolist()) == list(range(8))


def test_strata_hold_u_below_one_however_many():
    u, _ = StratifiedTimes(2**22).draw(Noise(0, torch.arange(2**22 - 1000, 2**22)))
    assert u.max() < 1


def test_density_follows_the_root_of_the_mean_square():
    times = LossSecondMomentTimes(bins=2, history=2, uniform_share=0.5)
    times.observe(torch.tensor([0.1, 0.2, 0.6, 0.9]), torch.tensor([1.0, 7.0, 2.0, 2.0]))
    assert times.probabilities.tolist() == pytest.approx([0.5 * 5 / 7 + 0.25, 0.5 * 2 / 7 + 0.25])
    u, weight = times.draw(NOISE)
    share = (u < 0.5).double().mean()
    assert abs(share - times.probabilities[0]) < 4 * 0.5 / math.sqrt(N)
    torch.testing.assert_close(
        weight, torch.where(u < 0.5, *(0.5 / times.probabilities).float()), rtol=1e-5, atol=0
    )


def test_times_are_uniform_until_every_bin_has_its_history():
    times = LossSecondMomentTimes(bins=4, history=3)
    times.observe(torch.tensor([0.1, 0.3, 0.6] * 3), torch.arange(9.0))
    times.observe(torch.tensor([0.9, 0.8]), torch.tensor([50.0, 50.0]))
    u, weight = times.draw(NOISE)
    torch.testing.assert_close(u, UniformTimes().draw(NOISE)[0], rtol=0, atol=1e-6)
    assert bool((weight == 1).all())
    times.observe(torch.tensor([0.8]), torch.tensor([50.0]))
    assert (times.draw(NOISE)[1] != 1).any()


def test_only_the_last_losses_count_however_they_come():
    """One at a time, and more at once than a bin remembers."""
    u = Noise(1, torch.arange(500)).uniform("u")
    loss = torch.arange(500.0)
    together, singly = LossSecondMomentTimes(5, 7), LossSecondMomentTimes(5, 7)
    together.observe(u, loss)
    for each in range(500):
        singly.observe(u[each : each + 1], loss[each : each + 1])
    assert torch.equal(together.losses, singly.losses)
    assert torch.equal(together.observed, singly.observed)
    for k in range(5):
        last = loss[(u * 5).long() == k][-7:]
        assert sorted(together.losses[k].tolist()) == last.tolist()


def test_a_restored_state_draws_the_same_times():
    times, restored = trained(), LossSecondMomentTimes(100, 10)
    restored.load_state_dict(times.state_dict())
    for a, b in zip(times.draw(NOISE), restored.draw(NOISE), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_losses_that_are_no_numbers_are_not_learned_from(bad):
    times, clean = LossSecondMomentTimes(4, 2), LossSecondMomentTimes(4, 2)
    u = torch.arange(16) / 16
    times.observe(u, torch.where(u == 0.3125, bad, u))
    clean.observe(u[u != 0.3125], u[u != 0.3125])
    times.observe(u[:1], torch.tensor([bad]))
    assert torch.equal(times.losses, clean.losses)
    assert torch.equal(times.observed, clean.observed)


def test_losses_of_zero_leave_times_uniform():
    times = LossSecondMomentTimes(bins=2, history=1)
    times.observe(torch.tensor([0.2, 0.7]), torch.zeros(2))
    assert bool((times.draw(NOISE)[1] == 1).all())
