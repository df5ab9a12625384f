import hashlib
import pickle
from pathlib import Path

import pytest
import torch
import torch_fidelity.feature_extractor_inceptionv3 as theirs
from torch import nn

from unnoise.evaluation.extractors.inception import FILE, SHA256, URL, InceptionExtractor


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of random weights that keep the size of what passes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(theirs, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(theirs.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        network = theirs.FeatureExtractorInceptionV3("inception", ["2048"])
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    path = tmp_path_factory.mktemp("inception") / "random.pth"
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def original(weights):
    return InceptionExtractor(weights)


@pytest.fixture(scope="module")
def antialiased(weights):
    return InceptionExtractor(weights, "antialias")


def pictures(size, n=2, channels=3):
    random = torch.Generator().manual_seed(size)
    shape = (n, channels, size, size)
    return torch.randint(256, shape, dtype=torch.uint8, generator=random)


@torch.inference_mode()
def test_features_are_those_of_torch_fidelity(original, weights):
    names = ["2048", "logits_unbiased"]
    peer = theirs.FeatureExtractorInceptionV3(
        "inception", names, feature_extractor_weights_path=weights
    )
    caught = []
    peer.Mixed_6d.branch1x1.register_forward_hook(lambda *passed: caught.append(passed[2]))
    x = pictures(32)
    pooled, logits = peer(x)
    ours = original(x)
    torch.testing.assert_close(ours.pooled, pooled, rtol=1e-4, atol=1e-4 * pooled.std().item())
    torch.testing.assert_close(ours.logits, logits, rtol=1e-4, atol=1e-4 * logits.std().item())
    assert ours.spatial.shape == (2, 7 * 17 * 17)
    places = caught[0][:, :7].flatten(1)
    torch.testing.assert_close(ours.spatial, places, rtol=1e-4, atol=1e-4 * places.std().item())


@torch.inference_mode()
def test_the_two_ways_to_299_differ_but_where_nothing_is_to_be_done(original, antialiased):
    assert original.resize != antialiased.resize
    large = pictures(598, n=1)
    a, b = original.interpolate(large.float()), antialiased.interpolate(large.float())
    assert b.std() < 0.7 * a.std()  # a mean of neighbours, instead of one in four of them
    torch.testing.assert_close(a, large[:, :, ::2, ::2].float())
    right = pictures(299, n=1)
    assert torch.equal(original(right).pooled, antialiased(right).pooled)


@torch.inference_mode()
def test_grey_is_repeated(original):
    grey = pictures(28, channels=1)
    a, b = original(grey), original(grey.repeat(1, 3, 1, 1))
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@torch.inference_mode()
def test_features_are_float32_whatever_surrounds(original):
    x = pictures(28, n=1)
    with torch.autocast("cpu", torch.bfloat16):
        inside = original(x)
    assert all(torch.equal(a, b) for a, b in zip(inside, original(x), strict=True))


def test_it_is_frozen_and_names_its_weights(original, weights):
    assert original.digest == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert not original.training
    assert not any(parameter.requires_grad for parameter in original.parameters())


def test_floats_are_refused(original):
    with pytest.raises(ValueError, match="uint8"):
        original(pictures(32).float())


class Trap:
    def __reduce__(self):
        return Path.touch, (Path("sprung"),)


def test_a_file_that_holds_something_else_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"fc.weight": torch.zeros(3)}, tmp_path / "other.pth")
    (tmp_path / "trap.pth").write_bytes(pickle.dumps(Trap(), protocol=2))
    torch.save({"fc.weight": Trap()}, tmp_path / "zipped_trap.pth")
    (tmp_path / "text.pth").write_text("weights")
    for path in list(tmp_path.iterdir()):
        with pytest.raises(ValueError, match=f"{path.name} does not hold the weights"):
            InceptionExtractor(path)
    assert not (tmp_path / "sprung").exists()
    with pytest.raises(ValueError, match="there is no file of weights gone"):
        InceptionExtractor(Path("gone"))


def test_the_file_is_the_one_that_torch_fidelity_names():
    assert theirs.URL_INCEPTION_V3 == URL
    assert FILE.endswith(f"-{SHA256[:8]}.pth")
