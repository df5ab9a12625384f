"""Averages that are put together after training are those that training would have kept."""

import numpy as np
import pytest
import torch
from torch import nn

from unnoise.models.averages import (
    PowerAverage,
    Profile,
    combination,
    gamma_of,
    overlap,
)

LENGTHS = (0.05, 0.1)
T, EVERY = 4096, 256


def weights(length, t):
    """p of each update 1 … t, by the updates themselves: the average of unit pulses."""
    decays = [(1 - 1 / k) ** (gamma_of(length) + 1) for k in range(1, t + 1)]
    found = np.zeros(t)
    for k, decay in enumerate(decays):
        found *= decay
        found[k] = 1 - decay
    return found


@pytest.mark.parametrize("length", [0.01, 0.05, 0.1, 0.2, 0.28])
def test_the_length_is_the_relative_standard_deviation(length):
    gamma = gamma_of(length)
    assert gamma > 0
    p, t = weights(length, T), np.arange(1, T + 1) - 0.5
    assert p.sum() == pytest.approx(1, abs=1e-12)
    mean = (p * t).sum()
    assert np.sqrt((p * (t - mean) ** 2).sum()) / T == pytest.approx(length, rel=1e-3)
    closed = (np.arange(1, T + 1) / T) ** (gamma + 1)
    np.testing.assert_allclose(p.cumsum(), closed, atol=1e-12)


@pytest.mark.parametrize(("t", "s"), [(T, T), (T, 1000), (512, 2048)])
@pytest.mark.parametrize(("a", "b"), [(0.05, 0.05), (0.05, 0.1), (0.15, 0.03)])
def test_overlaps_are_sums_over_the_updates(t, s, a, b):
    first = min(t, s)
    expected = (weights(a, t)[:first] * weights(b, s)[:first]).sum()
    assert overlap(Profile(t, a), Profile(s, b)) == pytest.approx(expected, rel=1e-3)


def test_an_average_that_was_kept_is_itself():
    kept = [Profile(t, length) for t in range(EVERY, T + 1, EVERY) for length in LENGTHS]
    for wanted in (kept[5], kept[-1]):
        shares, off = combination(kept, wanted)
        assert off < 1e-5
        assert shares[kept.index(wanted)] == pytest.approx(1, abs=1e-4)


def followed(length, path):
    """The last average of a weight that goes a path, as training keeps it."""
    model = nn.Linear(1, 1, bias=False).double()
    average = PowerAverage(model, length)
    found = []
    for value in path:
        model.weight.data.fill_(value)
        average.update([*model.parameters()])
        found.append(float(average.model.weight))
    return found


def test_any_length_is_that_of_training():
    """Of a weight that decays and shakes: to a few thousandths."""
    draw, t = np.random.default_rng(0), np.arange(1, T + 1)
    path = np.exp(-3 * t / T) + 0.3 * np.sin(40 * t / T) + 0.1 * draw.normal(size=T)
    kept = [Profile(k, length) for k in range(EVERY, T + 1, EVERY) for length in LENGTHS]
    values = {length: followed(length, path) for length in LENGTHS}
    snapshots = [values[each.length][each.updates - 1] for each in kept]
    for length in (0.06, 0.07, 0.08, 0.12, 0.15, 0.2):
        expected = followed(length, path)[-1]
        shares, off = combination(kept, Profile(T, length))
        assert sum(shares) == pytest.approx(1, abs=1e-12)
        assert np.dot(shares, snapshots) == pytest.approx(expected, abs=4e-3)
        combined = sum(
            x * np.pad(weights(p.length, p.updates), (0, T - p.updates))
            for x, p in zip(shares, kept, strict=True)
        )
        exact = weights(length, T)
        distance = np.linalg.norm(combined - exact) / np.linalg.norm(exact)
        assert distance == pytest.approx(off, abs=4e-3)


def test_a_weight_that_does_not_change_stays_exactly_the_same():
    model = nn.Linear(3, 3)
    average = PowerAverage(model, 0.1)
    for _ in range(50):
        average.update([*model.parameters()])
    assert torch.equal(average.model.weight, model.weight)


def test_too_few_are_known_by_their_distance():
    few = [Profile(T, length) for length in LENGTHS]
    assert combination(few, Profile(T, 0.07))[1] < 0.1
    assert combination(few, Profile(T, 0.01))[1] > 0.1
    assert combination(few, Profile(T, 0.28))[1] > 0.1
