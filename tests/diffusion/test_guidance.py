"""Guidance between predictions known in closed form."""

import pytest
import torch

from unnoise.diffusion import schedules
from unnoise.diffusion.denoiser import Denoised
from unnoise.diffusion.guidance import Guidance, classifier_guided, extrapolated
from unnoise.diffusion.noise import Noise
from unnoise.diffusion.oracle import GaussianOracle
from unnoise.diffusion.samplers import DDIM, Sampler

LINEAR = schedules.linear()
STRONG, WEAK = GaussianOracle(mu=0.5, s=0.2), GaussianOracle(mu=-0.1, s=0.4)
X = torch.randn(5, 3, 4, 4, dtype=torch.float64)


def level(t):
    return LINEAR.level(torch.tensor(t))


def never(x, level):
    raise AssertionError("this branch is not to be evaluated")


def both(x, level):
    return STRONG(x, level), WEAK(x, level)


def test_scale_one_is_the_stronger_prediction_alone():
    found = extrapolated(STRONG, never, Guidance(scale=1))(X, level(300))
    assert torch.equal(found.x0, STRONG(X, level(300)).x0)
    assert torch.equal(found.eps, STRONG(X, level(300)).eps)


def test_scale_zero_is_the_weaker_prediction():
    found = extrapolated(STRONG, both, Guidance(scale=0))(X, level(300))
    assert torch.equal(found.x0, WEAK(X, level(300)).x0)
    assert torch.equal(found.eps, WEAK(X, level(300)).eps)


@pytest.mark.parametrize("rescale", [0.0, 0.7])
@pytest.mark.parametrize("t", [0, 400, 999])
def test_both_parts_of_the_prediction_explain_x_t(t, rescale):
    denoised = extrapolated(STRONG, both, Guidance(scale=3, rescale=rescale))(X, level(t))
    alpha, sigma = level(t).alpha, level(t).sigma
    torch.testing.assert_close(alpha * denoised.x0 + sigma * denoised.eps, X, rtol=0, atol=1e-10)


def test_epsilon_is_ho_and_salimans_equation_6():
    """(1 + w)·ε_strong − w·ε_weak with s = 1 + w."""
    w, here = 2.5, level(500)
    found = extrapolated(STRONG, both, Guidance(scale=1 + w))(X, here).eps
    expected = (1 + w) * STRONG(X, here).eps - w * WEAK(X, here).eps
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_outside_of_the_interval_only_the_stronger_branch_is_asked():
    guidance = Guidance(scale=4, interval=(0.3, 5.0))
    on, off = extrapolated(STRONG, both, guidance), extrapolated(STRONG, never, guidance)
    for t in (0, 50, 200, 400, 900):
        here = level(t)
        if 0.3 <= here.sigma / here.alpha <= 5.0:
            assert not torch.equal(on(X, here).x0, STRONG(X, here).x0)
        else:
            assert torch.equal(off(X, here).x0, STRONG(X, here).x0)


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_rescaling_restores_the_standard_deviation_of_each_picture(share):
    """Lin et al.: std = φ·std of the stronger prediction + (1 − φ)·std of the guided one."""

    def std(guidance):
        denoised = extrapolated(STRONG, both, guidance)(X, level(600))
        return denoised.x0.flatten(1).std(dim=1)

    strong, plain = std(Guidance()), std(Guidance(scale=5))
    assert (plain / strong - 1).abs().min() > 0.1
    torch.testing.assert_close(
        std(Guidance(scale=5, rescale=share)), share * strong + (1 - share) * plain
    )


@pytest.mark.parametrize("shade", [0.0, 0.3])
def test_rescaling_leaves_predictions_of_one_colour_as_they_are(shade):
    """As of a network that has learned nothing yet: they have no deviation to restore."""

    def plain(x, level):
        x0 = torch.full_like(x, shade)
        return Denoised(x0, (x - level.alpha * x0) / level.sigma)

    x = X.float()
    denoise = extrapolated(plain, lambda x, t: (plain(x, t),) * 2, Guidance(3, rescale=0.7))
    torch.testing.assert_close(denoise(x, level(300)).x0, torch.full_like(x, shade))


def test_an_interval_may_be_a_list_and_has_its_lower_end_first():
    assert [Guidance(interval=[0.3, 5.0]).applies(level(t)) for t in (0, 400, 999)] == [
        False, True, False,
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"interval \[5.0, 0.3\] is empty.* lower end first"):
        Guidance(interval=[5.0, 0.3])


def test_the_learned_variance_is_the_stronger_ones():
    def strong(x, level):
        return STRONG(x, level)._replace(variance_fraction=torch.full_like(x, 0.25))

    denoise = extrapolated(strong, lambda x, t: (strong(x, t), WEAK(x, t)), Guidance(scale=2))
    assert (denoise(X, level(10)).variance_fraction == 0.25).all()


class LinearClassifier:
    """p(y | x0) ∝ exp(w·x0): seen through noise, ln p(y | x_t) = w·E[x0 | x_t] + const."""

    def __init__(self, w):
        self.w = w

    def __call__(self, x, level):
        alpha, v = level.alpha, level.alpha**2 * STRONG.s**2 + level.sigma**2
        return self.w * (alpha * STRONG.s**2 / v * x).flatten(1).sum(dim=1)


@pytest.mark.parametrize("scale", [0.0, 1.0, 3.0])
def test_a_linear_classifier_shifts_the_gaussian_exactly(scale):
    """N(mu, s²)·exp(scale·w·x0) is N(mu + scale·w·s², s²), whose prediction is known as well."""
    w = 1.7
    shifted = GaussianOracle(mu=STRONG.mu + scale * w * STRONG.s**2, s=STRONG.s)
    denoise = classifier_guided(STRONG, LinearClassifier(w), Guidance(scale=scale))
    for t in (0, 300, 999):
        found, expected = denoise(X, level(t)), shifted(X, level(t))
        torch.testing.assert_close(found.eps, expected.eps, rtol=0, atol=1e-12)
        torch.testing.assert_close(found.x0, expected.x0, rtol=0, atol=1e-10)


def test_a_classifier_can_be_differentiated_while_a_sampler_draws():
    """Samplers work in inference mode; x is multiplied with the level, which is saved for that."""
    w, n = 2.0, 4000
    denoise = classifier_guided(STRONG, LinearClassifier(w), Guidance())
    x = Sampler(DDIM(), steps=50)(denoise, LINEAR, (1,), Noise(0, torch.arange(n)))
    plain = Sampler(DDIM(), steps=50)(STRONG, LINEAR, (1,), Noise(0, torch.arange(n)))
    assert (x - plain).mean() == pytest.approx(w * STRONG.s**2, rel=0.02)
    assert (x - plain).std() < 1e-4


def test_a_classifier_is_not_asked_where_it_does_not_apply():
    guidance = Guidance(scale=2, interval=(0.0, 1.0))
    found = classifier_guided(STRONG, never, guidance)(X, level(900))
    assert torch.equal(found.x0, STRONG(X, level(900)).x0)
    zero = level(999)._replace(alpha=torch.zeros((), dtype=torch.float64))
    classifier_guided(STRONG, never, Guidance(scale=2))(X, zero)
