import numpy as np
import pytest
import torch
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from unnoise.evaluation import distances
from unnoise.evaluation.distances import (
    Moments,
    frechet_distance,
    kernel_distance,
    kernel_mean,
    moments,
)


class Same(nn.Module):
    num_features = 6

    def forward(self, x):
        return x


def normal(n, d=6, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def kid(x, y):
    likeness = kernel_mean(y, torch.ones(len(y), 1).double())
    return kernel_distance(x, y, torch.ones(len(x), 1).double(), likeness)


def by_hand(x, y):
    def k(a, b):
        return (a @ b.T / a.shape[1] + 1) ** 3

    (n, m), x, y = (len(x), len(y)), x.numpy(), y.numpy()
    among = (k(x, x).sum() - np.trace(k(x, x))) / (n * (n - 1))
    real = (k(y, y).sum() - np.trace(k(y, y))) / (m * (m - 1))
    return among + real - 2 * k(x, y).mean()


def test_frechet_distance_is_that_of_torchmetrics():
    x, y = normal(90) * 1.3 + 0.2, normal(70, seed=1)
    theirs = FrechetInceptionDistance(feature=Same())
    theirs.update(x, real=False)
    theirs.update(y, real=True)
    assert frechet_distance(moments(x), moments(y)) == pytest.approx(
        float(theirs.compute()), rel=1e-9
    )


def test_frechet_distance_of_two_normal_distributions():
    one = Moments(10**6, torch.zeros(4).double(), torch.eye(4).double())
    other = Moments(10**6, torch.full((4,), 0.1).double(), 1.21 * torch.eye(4).double())
    assert frechet_distance(one, other) == pytest.approx(0.08, abs=1e-6)


def test_frechet_distance_of_correlated_normal_distributions_in_one_basis():
    basis, _ = torch.linalg.qr(normal(5, 5))
    a, b = torch.tensor([4.0, 1.0, 0.25, 9.0, 0.0]), torch.tensor([1.0, 1.0, 4.0, 0.0, 2.25])
    covariances = [basis * values @ basis.T for values in (a, b)]
    one, other = (Moments(10**6, torch.zeros(5).double(), each) for each in covariances)
    expected = (a.sqrt() - b.sqrt()).square().sum()
    assert frechet_distance(one, other) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("n", [300, 5])
def test_a_set_is_at_no_distance_from_itself(n):
    x = normal(n, 40)
    x[:, 3] = 1.5
    assert frechet_distance(moments(x), moments(x)) < 1e-6


def test_dimensions_without_variance_do_not_matter():
    basis, _ = torch.linalg.qr(normal(200, 6, seed=2))
    x, y = normal(50) + 0.5, normal(60, seed=1)
    low = frechet_distance(moments(x), moments(y))
    assert frechet_distance(moments(x @ basis.T), moments(y @ basis.T)) == pytest.approx(
        float(low), 1e-9
    )


def test_frechet_distance_of_fewer_pictures_than_dimensions_equals_a_sum_of_singular_values():
    x, y = normal(9, 30), normal(20, 30, seed=1)
    a, b = ((each - each.mean(0)) / (len(each) - 1) ** 0.5 for each in (x, y))
    trace = torch.linalg.svdvals(a @ b.T).sum()  # tr (Σ_a·Σ_b)^½ = ‖A·Bᵀ‖ of Σ = Aᵀ·A
    means = (x.mean(0) - y.mean(0)).square().sum()
    expected = means + a.square().sum() + b.square().sum() - 2 * trace
    assert frechet_distance(moments(x), moments(y)) == pytest.approx(float(expected), rel=1e-9)
    assert frechet_distance(moments(y), moments(x)) == pytest.approx(float(expected), rel=1e-9)


def test_moments_far_from_the_origin():
    x = normal(100)
    far = moments(x + 1e6)
    torch.testing.assert_close(far.mean, x.mean(0) + 1e6)
    torch.testing.assert_close(far.covariance, torch.cov(x.T), rtol=0, atol=1e-8)


def test_one_picture_has_no_covariance():
    with pytest.raises(ValueError, match="takes 2 pictures or more, not 1"):
        moments(normal(1))


def test_features_of_other_dimensions():
    with pytest.raises(ValueError, match="6 dimensions cannot be compared with 4"):
        frechet_distance(moments(normal(9)), moments(normal(9, 4)))


def test_kernel_distance_is_that_of_torchmetrics():
    x, y = normal(60) * 1.2, normal(60, seed=1)
    theirs = KernelInceptionDistance(feature=Same(), subsets=1, subset_size=60)
    theirs.update(x, real=False)
    theirs.update(y, real=True)
    assert kid(x, y) == pytest.approx(float(theirs.compute()[0]), rel=1e-9)


@pytest.mark.parametrize("chunk", [1, 1000])
def test_kernel_distance_by_hand_whatever_the_chunks(chunk, monkeypatch):
    monkeypatch.setattr(distances, "CHUNK", chunk)
    x, y = normal(33) + 0.3, normal(41, seed=1)
    assert kid(x, y) == pytest.approx(by_hand(x, y), rel=1e-9)


def test_kernel_distance_is_unbiased():
    values = torch.cat([kid(normal(8, 2, 2 * k), normal(8, 2, 2 * k + 1)) for k in range(2000)])
    assert abs(values.mean()) < 4 * values.std() / len(values) ** 0.5


def test_weights_choose_pictures():
    x, y = normal(12), normal(9, seed=1)
    weights = torch.stack([torch.arange(12) < 7, torch.arange(12) >= 5], 1).double()
    likeness = kernel_mean(y, torch.ones(9, 1).double())
    expected = [by_hand(x[:7], y), by_hand(x[5:], y)]
    assert kernel_distance(x, y, weights, likeness).tolist() == pytest.approx(expected, rel=1e-9)


def test_one_picture_has_no_pairs():
    with pytest.raises(ValueError, match="takes 2 pictures or more, not 1"):
        kernel_mean(normal(1), torch.ones(1, 1).double())
