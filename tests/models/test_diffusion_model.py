"""What joins network, conditions, guidance and samplers."""

import pytest
import torch
from torch import nn

from unnoise.diffusion import schedules
from unnoise.diffusion.denoiser import Clip, Denoiser, EpsilonPrediction, VPrediction
from unnoise.diffusion.editing import ImageToImage
from unnoise.diffusion.guidance import Guidance
from unnoise.diffusion.likelihood import bound
from unnoise.diffusion.noise import Noise
from unnoise.diffusion.objectives import SimpleLoss
from unnoise.diffusion.samplers import DDIM, Sampler
from unnoise.diffusion.schedules import (
    EDMSchedule,
    GeometricSchedule,
    LogitNormalFlow,
    RectifiedFlow,
)
from unnoise.diffusion.times import UniformTimes
from unnoise.models.codec import PixelCodec
from unnoise.models.diffusion import DiffusionModel
from unnoise.networks.conditioning import ClassConditioner, Condition, Conditioner

LINEAR = schedules.linear()
LEVEL = LINEAR.level(torch.tensor(400))
SHAPE = (3, 4, 4)
X = torch.randn(5, *SHAPE)


class Tinted(nn.Module):
    """A network that adds its condition's first number; it counts its calls."""

    def __init__(self, shade=0.0):
        super().__init__()
        self.shade, self.calls = nn.Parameter(torch.tensor(shade)), 0

    def forward(self, x, t, condition):
        self.calls += 1
        tint = 0.0 if condition is None else condition.vector[:, :1, None, None]
        return torch.sin(2 * x) + self.shade + tint


class Lengths(Conditioner):
    """The length of a caption, which is a list as loaders give it."""

    width, reads = 1, ("caption",)

    def forward(self, batch, keep):
        lengths = torch.tensor([float(len(c)) for c in batch["caption"]])
        return Condition(vector=torch.where(keep, lengths, 0.0)[:, None])


def model(conditioner=None, shade=0.0, schedule=LINEAR, shape=SHAPE):
    return DiffusionModel(
        Denoiser(Tinted(shade), EpsilonPrediction()), schedule, PixelCodec(shape), conditioner
    ).requires_grad_(False)


def with_classes():
    torch.manual_seed(0)
    return model(ClassConditioner(classes=4, width=2))


LABELS = {"label": torch.tensor([0, 3, 1, 1, 2])}


def test_both_branches_are_one_call_of_the_network():
    conditional = with_classes()
    guided = conditional.guided(LABELS, 5, Guidance(scale=3))
    conditional.denoiser.network.calls = 0
    found = guided(X, LEVEL)
    assert conditional.denoiser.network.calls == 1
    keep = torch.ones(5, dtype=torch.bool)
    strong, weak = (
        conditional.under(conditional.condition(LABELS, each))(X, LEVEL) for each in (keep, ~keep)
    )
    torch.testing.assert_close(found.eps, weak.eps + 3 * (strong.eps - weak.eps))


@pytest.mark.parametrize("drop", [0.0, 0.2, 1.0])
def test_a_condition_is_dropped_with_the_probability_asked_for(drop):
    kept, n = [], 4000

    class Seen(Lengths):
        def forward(self, batch, keep):
            kept.append(keep)
            return super().forward(batch, keep)

    batch = {"image": torch.zeros(n, *SHAPE, dtype=torch.uint8), "caption": ["a"] * n}
    model(Seen()).loss(SimpleLoss(), batch, Noise(0, torch.arange(n)), UniformTimes(), drop)
    dropped = 1 - kept[0].double().mean()
    assert abs(dropped - drop) <= 4 * (drop * (1 - drop) / n) ** 0.5


def test_scale_one_is_the_conditional_guess():
    conditional = with_classes()
    found = conditional.guided(LABELS, 5, Guidance())(X, LEVEL)
    condition = conditional.condition(LABELS, torch.ones(5, dtype=torch.bool))
    assert torch.equal(found.eps, conditional.under(condition)(X, LEVEL).eps)


def test_captions_in_a_list_guide_as_tensors_do():
    words = ["a", "bb", "ccc", "dddd", "eeeee"]
    denoised = model(Lengths()).guided({"caption": words}, 5, Guidance(scale=2))(X, LEVEL)
    plain = model().guided(None, 5, Guidance())(X, LEVEL)
    pushed = (denoised.eps - plain.eps).mean(dim=(1, 2, 3))
    torch.testing.assert_close(pushed, 2.0 * torch.tensor([1.0, 2, 3, 4, 5]), rtol=0, atol=1e-5)


def test_autoguidance_goes_away_from_the_worse_model():
    """weak + s·(strong − weak), Karras et al. 2024."""
    strong, worse = model(shade=0.1), model(shade=0.4)
    found = strong.guided(None, 5, Guidance(scale=2.5), weak=worse)(X, LEVEL)
    good, bad = (each.under(None)(X, LEVEL) for each in (strong, worse))
    torch.testing.assert_close(found.x0, bad.x0 + 2.5 * (good.x0 - bad.x0))


class Brightness:
    """ln p(y | x_t) = (y + 1)·mean of x_t."""

    names = ("dark", "light")

    def log_probability(self, x_t, level, labels):
        return (labels + 1) * x_t.flatten(1).mean(dim=1) * level.alpha


def test_a_classifier_guides_an_unconditional_model_while_it_draws():
    plain, noise = model(), Noise(0, torch.arange(4))
    sampler = Sampler(DDIM(), steps=6, guidance=Guidance(scale=400))
    labels = {"label": torch.tensor([0, 1, 0, 1])}
    drawn = plain.sample_signal(sampler, noise, labels, classifier=Brightness())
    off = plain.sample_signal(Sampler(DDIM(), steps=6), noise)
    brighter = (drawn - off).mean(dim=(1, 2, 3))
    assert (brighter > 0).all()
    assert brighter[[1, 3]].min() > brighter[[0, 2]].max()


def test_the_labels_may_stem_from_inference_mode():
    """Examples do, and embedding tables keep their indices for the way back."""

    class Table:
        names = ("a", "b", "c", "d")

        def log_probability(self, x_t, level, labels):
            weight = nn.functional.embedding(labels.clone(), torch.arange(4.0)[:, None])
            return weight[:, 0] * x_t.flatten(1).mean(dim=1)

    drawn = with_classes().sample_signal(
        Sampler(DDIM(), steps=3), Noise(0, torch.arange(4)), classifier=Table()
    )
    assert drawn.isfinite().all()


@pytest.mark.parametrize(
    ("ask", "told"),
    [
        (lambda: model().guided(None, 5, Guidance(scale=2)), "the model is unconditional"),
        (lambda: with_classes().guided(None, 5, Guidance()), "give it a batch with label"),
        (lambda: with_classes().guided({"image": X}, 5, Guidance()), "reads 'label'"),
        (lambda: with_classes().guided(LABELS, 4, Guidance()), "5 of 'label' are given for 4"),
        (
            lambda: model().guided(LABELS, 5, Guidance(), weak=model(), classifier=Brightness()),
            "not by both",
        ),
        (
            lambda: model().guided(None, 5, Guidance(), classifier=Brightness()),
            "a classifier guides towards labels: give a batch with 'label'",
        ),
        (
            lambda: model().guided(LABELS, 5, Guidance(rescale=0.5), classifier=Brightness()),
            "rescale",
        ),
        (
            lambda: model().guided(None, 5, Guidance(), weak=model(schedule=schedules.cosine())),
            "another schedule",
        ),
        (lambda: model().guided(None, 5, Guidance(), weak=model(shape=(1, 4, 4))), "1, 4, 4"),
    ],
)
def test_what_cannot_be_guided_is_refused(ask, told):
    with pytest.raises(ValueError, match=told):
        ask()


def flowing(schedule):
    return DiffusionModel(Denoiser(Tinted(), VPrediction()), schedule, PixelCodec(SHAPE))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (RectifiedFlow(T=1000), LogitNormalFlow(T=100)),
        (EDMSchedule(), EDMSchedule(sigma_max=50.0)),
        (EDMSchedule(), GeometricSchedule()),
        (schedules.zero_terminal_snr(LINEAR), schedules.zero_terminal_snr(LINEAR)),
    ],
)
def test_a_weak_model_may_have_other_levels_of_the_same_path(ours, theirs):
    flowing(ours).guided(None, 5, Guidance(), weak=flowing(theirs))
    flowing(theirs).guided(None, 5, Guidance(), weak=flowing(ours))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (LINEAR, schedules.linear(T=500)),  # would be told other times
        (LINEAR, schedules.zero_terminal_snr(LINEAR)),
        (EDMSchedule(), RectifiedFlow()),
        (EDMSchedule(sigma_max=1.0), EDMSchedule(sigma_min=2.0)),
    ],
)
def test_a_weak_model_of_another_path_is_refused(ours, theirs):
    with pytest.raises(ValueError, match="another schedule"):
        flowing(ours).guided(None, 5, Guidance(), weak=flowing(theirs))


def test_autoguidance_asks_the_worse_model_for_the_same():
    words = {"caption": ["a", "bb", "ccc", "dddd", "eeeee"]}
    strong, worse = model(Lengths(), shade=0.1), model(Lengths(), shade=0.4)
    found = strong.guided(words, 5, Guidance(scale=2), weak=worse)(X, LEVEL)
    plain = model().guided(None, 5, Guidance())(X, LEVEL)
    lengths = torch.tensor([1.0, 2, 3, 4, 5])
    expected = 2 * (lengths + 0.1) - (lengths + 0.4)
    torch.testing.assert_close(
        (found.eps - plain.eps).mean(dim=(1, 2, 3)), expected, rtol=0, atol=1e-5
    )


def test_an_edit_draws_in_place_of_the_sampler():
    sampler, noise = Sampler(DDIM(), steps=10, threshold=Clip()), Noise(0, torch.arange(2))
    image = torch.full((1, *SHAPE), 0.3)
    near = model().sample_signal(sampler, noise, edit=ImageToImage(image, 0.1))
    assert (near - image).abs().max() < 0.2
    assert (model().sample_signal(sampler, noise) - image).abs().max() > 0.2
    with pytest.raises(ValueError, match=r"\(1, 4, 4\), but the model draws \(3, 4, 4\)"):
        model().sample_signal(sampler, noise, edit=ImageToImage(image[:, :1], 0.1))


def test_the_variational_bound_is_that_of_the_pictures_under_their_conditions():
    conditional, noise = with_classes(), Noise(3, torch.arange(5))
    image = torch.arange(5 * 48).remainder(256).to(torch.uint8).reshape(5, *SHAPE)
    found = conditional.variational_bound(LABELS | {"image": image}, noise, steps=4)
    x0 = image / 127.5 - 1
    told = conditional.under(conditional.condition(LABELS, torch.ones(5, dtype=torch.bool)))
    expected = bound(told, LINEAR.grid(4), x0, noise, "beta")
    torch.testing.assert_close(found.total, expected.total)
    other = conditional.variational_bound({"image": image, "label": torch.zeros(5).long()}, noise)
    assert found.steps.shape == (5, 3)
    assert other.steps.shape == (5, 999)
    assert not torch.equal(other.decoder, found.decoder)
