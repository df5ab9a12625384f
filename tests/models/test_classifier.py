"""The classifier of noisy pictures."""

import os
from itertools import pairwise

import pytest
import torch
from torch.func import functional_call

from unnoise.data.memory import TensorImages
from unnoise.data.pixels import to_signal
from unnoise.diffusion import schedules
from unnoise.diffusion.denoiser import Denoised
from unnoise.diffusion.guidance import Guidance, classifier_guided
from unnoise.diffusion.levels import CLEAN, NoiseLevel
from unnoise.diffusion.noise import Noise
from unnoise.models.classifier import NoisyClassifier, accuracy, train
from unnoise.networks.encoder import UNetEncoder

NODE = {
    "_target_": "unnoise.networks.encoder.UNetEncoder",
    "shape": [1, 8, 8],
    "classes": 2,
    "channels": 8,
    "multipliers": [1, 2],
    "blocks": 1,
}


def halves(n=256):
    """Two classes: noise-like pictures with a bright left half, or with a bright right half."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % 2
    images = torch.randint(0, 120, (n, 1, 8, 8), generator=generator)
    images[labels == 0, ..., :4] += 120
    images[labels == 1, ..., 4:] += 120
    return TensorImages(images.to(torch.uint8), labels)


def network():
    return UNetEncoder((1, 8, 8), 2, channels=8, multipliers=(1, 2))


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    classifier = NoisyClassifier(network(), ("left", "right"), about={"network": NODE})
    losses = []
    train(classifier, halves(), schedules.cosine(), steps=80, batch_size=64, lr=1e-2,
          watch=losses.append)  # fmt: skip
    return classifier, losses


def level(log_snr):
    value = torch.tensor(log_snr, dtype=torch.float64)
    return NoiseLevel(torch.tensor(0.0), value.sigmoid().sqrt(), (-value).sigmoid().sqrt())


def test_training_begins_at_a_guess_and_learns(trained):
    classifier, losses = trained
    assert losses[0] == pytest.approx(torch.tensor(2.0).log().item(), abs=1e-5)
    assert sum(losses[-10:]) / 10 < 0.3
    assert accuracy(classifier, halves()) == 1
    assert accuracy(classifier, halves(), level(0.0)) > 0.9
    assert 0.35 < accuracy(classifier, halves(), level(-20.0)) < 0.65


def test_training_is_a_function_of_data_and_seed(trained):
    torch.manual_seed(0)
    again = NoisyClassifier(network(), ("left", "right"))
    torch.rand(7)  # whatever the state of torch's own generator
    train(again, halves(), schedules.cosine(), steps=80, batch_size=64, lr=1e-2)
    for a, b in zip(again.parameters(), trained[0].parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


def test_the_learning_rate_falls_to_zero():
    """By AdamW a weight moves by about its learning rate."""
    torch.manual_seed(0)
    classifier = NoisyClassifier(network(), ("left", "right"))
    weights, first = [], classifier.network.conv_in.weight
    train(classifier, halves(), schedules.cosine(), steps=20, batch_size=16, lr=1e-3,
          watch=lambda _: weights.append(first.detach().clone()))  # fmt: skip
    moves = [(b - a).abs().max().item() for a, b in pairwise(weights)]
    assert moves[0] > 5e-4
    assert moves[-1] < 0.05 * moves[0]


def test_the_probability_is_of_each_pictures_own_label_at_its_own_level(trained):
    x, labels = torch.randn(3, 1, 8, 8), torch.tensor([1, 0, 1])
    levels = [level(log_snr) for log_snr in (3.0, 0.0, -3.0)]
    together = NoiseLevel(*(torch.stack(parts) for parts in zip(*levels, strict=True)))
    found = trained[0].log_probability(x, together, labels).exp()
    for k in range(3):
        p = trained[0].logits(x[k : k + 1], levels[k]).softmax(1)[0]
        assert found[k].item() == pytest.approx(p[labels[k]].item(), rel=1e-4)


@pytest.mark.parametrize(
    ("alpha", "sigma", "angle"),
    [(1, 0, 0), (3, 3, 500), (0.5, 0.5 * 3**0.5, 2000 / 3), (0, 1, 1000)],
)
def test_the_network_is_told_the_angle_of_the_level(trained, alpha, sigma, angle):
    told = []
    hook = trained[0].network.register_forward_pre_hook(lambda _, args: told.append(args[1]))
    parts = (torch.tensor(part, dtype=torch.float64) for part in (alpha, sigma))
    trained[0].logits(torch.randn(2, 1, 8, 8), NoiseLevel(torch.tensor(7.0), *parts))
    hook.remove()
    assert told[0].tolist() == pytest.approx(angle, rel=1e-6)


def test_what_the_classifier_says_depends_on_the_level(trained):
    x = torch.randn(4, 1, 8, 8)
    near, far = (trained[0].logits(x, level(log_snr)) for log_snr in (4.0, -4.0))
    assert (near - far).abs().max() > 1e-2


def test_a_level_for_all_stays_where_it_is(trained, monkeypatch):
    """On a device without float64 it could not be."""
    asked = []
    monkeypatch.setattr(
        trained[0], "logits", lambda x, at: asked.append(at) or torch.zeros(len(x), 2)
    )
    trained[0].predict(halves(4).images)
    assert asked[0] is CLEAN


def test_only_the_ratio_of_signal_to_noise_matters(trained):
    """x_t = x0 + s·eps says what x_t/√(1 + s²) says: one classifier for schedules of all kinds."""
    x, preserving = torch.randn(4, 1, 8, 8), level(1.0)
    exploding = NoiseLevel(
        torch.tensor(77.0), torch.ones(()).double(), preserving.sigma / preserving.alpha
    )
    torch.testing.assert_close(
        trained[0].logits(x / preserving.alpha.float(), exploding),
        trained[0].logits(x, preserving),
        rtol=0,
        atol=1e-4,
    )


@pytest.mark.parametrize("label", [0, 1])
def test_its_gradient_leads_from_noise_to_the_class(trained, label):
    each, labels = level(-1.0), torch.full((64,), label)
    x = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    x.requires_grad_()
    for _ in range(5):
        (slope,) = torch.autograd.grad(trained[0].log_probability(x, each, labels).sum(), x)
        x = (x + 0.5 * slope / slope.square().mean().sqrt()).detach().requires_grad_()
    brighter = x[..., 4:].mean() - x[..., :4].mean()
    assert (brighter if label else -brighter) > 0.2


def test_it_guides_in_inference_mode(trained):
    x, each = torch.randn(4, 1, 8, 8), level(0.0)

    def denoise(x_t, at):
        return Denoised(x_t, torch.zeros_like(x_t), None)

    with torch.inference_mode():
        labels = torch.tensor([0, 1, 0, 1])
        guided = classifier_guided(
            denoise, lambda x_t, at: trained[0].log_probability(x_t, at, labels), Guidance(3.0)
        )
        eps = guided(x * 1.0, NoiseLevel(*(part * 1 for part in each))).eps
    slope = torch.autograd.functional.jacobian(
        lambda x_t: trained[0].log_probability(x_t, each, labels * 1).sum(), x
    )
    torch.testing.assert_close(eps, -3 * each.sigma.float() * slope, rtol=1e-3, atol=1e-5)


def test_the_loss_on_a_clean_batch_is_that_of_clean_pictures(trained, monkeypatch):
    monkeypatch.setattr("unnoise.models.classifier.CLEAN_SHARE", 1.0)
    images, noise = halves(8), Noise(0, torch.arange(8))
    loss = trained[0].loss(images.images, images.labels, schedules.cosine(), noise)
    ours = trained[0].log_probability(to_signal(images.images), CLEAN, images.labels)
    torch.testing.assert_close(loss, -ours.mean(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("patch", [1, 2])
def test_every_parameter_is_used(patch):
    torch.manual_seed(0)
    net = UNetEncoder((1, 8, 8), 2, channels=8, patch=patch, multipliers=(1, 2))
    state = {k: torch.randn_like(v) for k, v in net.state_dict().items()}
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([3.0, 900.0])
    out = functional_call(net, state, (x, t))
    for name, value in state.items():
        changed = functional_call(net, {**state, name: torch.randn_like(value)}, (x, t))
        assert not torch.allclose(changed, out, atol=1e-4), name


def test_a_patch_becomes_channels():
    """With patches the first convolution sees squares of 2 × 2 pixels at once."""
    net = UNetEncoder((1, 8, 8), 2, channels=8, patch=2, multipliers=(1, 2))
    seen = []
    net.conv_in.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    x = torch.randn(1, 1, 8, 8)
    net(x, torch.zeros(()))
    assert torch.equal(seen[0][0, :, 1, 3], x[0, 0, 2:4, 6:8].flatten())


def test_saved_and_loaded_it_says_the_same(trained, tmp_path):
    classifier = trained[0]
    classifier.save(tmp_path / "new" / "classifier.pt")
    loaded = NoisyClassifier.load(tmp_path / "new" / "classifier.pt")
    x = torch.randn(5, 1, 8, 8)
    assert torch.equal(loaded.logits(x, level(0.0)), classifier.logits(x, level(0.0)))
    assert (loaded.names, loaded.target, loaded.about) == (
        ("left", "right"), "label", classifier.about,
    )  # fmt: skip
    assert not any(p.requires_grad for p in loaded.parameters())


class Payload:
    def __reduce__(self):
        return os.system, ("touch executed",)


def test_what_is_no_classifier_is_refused_and_executes_nothing(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trained[0].save(tmp_path / "whole.pt")
    whole = (tmp_path / "whole.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[:-900])
    (tmp_path / "text.pt").write_bytes(b"hello")
    torch.save({"state_dict": Payload()}, "pickle.pt")
    content = torch.load("whole.pt", weights_only=True)
    evil = {"_target_": "os.system", "command": "touch executed"}
    about = {**content["classifier"], "about": {"network": evil}}
    torch.save({**content, "classifier": about}, "target.pt")
    for name, told in {
        "cut.pt": "is no whole archive",
        "text.pt": "is no zip archive",
        "pickle.pt": "names 'posix system'",
        "target.pt": "is not a whole classifier of unnoise: 'os.system' is not on the allow-list",
    }.items():
        with pytest.raises(ValueError, match=f"{name} {told}"):
            NoisyClassifier.load(name)
    assert not (tmp_path / "executed").exists()
    with pytest.raises(FileNotFoundError):
        NoisyClassifier.load("nowhere.pt")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"shape": (1, 8, 6), "multipliers": (1, 1, 1)}, "halved 2 times: use multiples of 4"),
        ({"shape": (1, 6, 8), "patch": 4}, "into patches of 4 and halved 2 times"),
        ({"multipliers": ()}, "multipliers is empty"),
    ],
)
def test_a_network_that_cannot_be_is_refused(changes, told):
    with pytest.raises(ValueError, match=told):
        UNetEncoder(**{"shape": (1, 8, 8), "classes": 2, **changes})


def test_pictures_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"the classifier wants \(B, 1, 8, 8\)"):
        network()(torch.zeros(1, 3, 8, 8), torch.zeros(()))
