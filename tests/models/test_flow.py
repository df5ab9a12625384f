"""Normalizing flows: inverse, determinant and likelihood against autograd and closed forms."""

import math

import pytest
import torch
from torch import nn

from unnoise.data.pixels import to_signal
from unnoise.diffusion.likelihood import dequantised
from unnoise.diffusion.noise import Noise
from unnoise.models.flow import NormalizingFlow
from unnoise.networks.adversarial import LatentSampler
from unnoise.networks.conditioning import ClassConditioner, ConditionShape
from unnoise.networks.flows import RealNVP, TarFlow

SHAPE = (3, 8, 4)
FLOWS = {
    "tarflow": (TarFlow, {"patch": 2, "width": 16, "blocks": 3, "layers": 2, "heads": 2}),
    "realnvp": (RealNVP, {"width": 8, "couplings": 2, "scales": 2}),
}


@pytest.fixture(params=FLOWS)
def kind(request):
    return request.param


def flow(kind, std=0.2, conditional=True):
    torch.manual_seed(0)
    target, sizes = FLOWS[kind]
    network = target(SHAPE, ConditionShape(vector=6 if conditional else 0), **sizes)
    for weight in network.parameters() if std else ():
        nn.init.normal_(weight, std=std)
    return network


def normals(name, n=5, shape=SHAPE):
    return Noise(0, torch.arange(n)).normal(name, shape)


def test_at_first_it_is_the_identity(kind):
    x, network = normals("x"), flow(kind, std=0)
    z, log_det = network.encode(x, normals("v", shape=(6,)))
    assert torch.equal(z, x)
    assert not log_det.any()
    assert torch.equal(network(z, normals("v", shape=(6,))), x)


def test_forward_inverts_encode(kind):
    x, v, network = normals("x"), normals("v", shape=(6,)), flow(kind).double()
    z, _ = network.encode(x.double(), v.double())
    assert (z - x).abs().mean() > 0.1
    torch.testing.assert_close(network(z, v.double()), x.double(), rtol=0, atol=1e-9)
    single = flow(kind, std=0.1)
    z, _ = single.encode(x, v)
    torch.testing.assert_close(single(z, v), x, rtol=1e-5, atol=1e-5)


def test_the_determinant_is_that_of_the_whole_jacobian(kind):
    x, v, network = normals("x", 2).double(), normals("v", 2, (6,)).double(), flow(kind).double()
    log_det = network.encode(x, v)[1].detach()
    for k in range(2):
        jacobian = torch.autograd.functional.jacobian(
            lambda y, k=k: network.encode(y[None], v[k : k + 1])[0].flatten(), x[k]
        )
        sign, expected = torch.linalg.slogdet(jacobian.flatten(1))
        assert float(sign) == 1
        assert float(log_det[k]) == pytest.approx(float(expected), abs=1e-8)
    assert log_det.abs().min() > 0.1


def test_a_patch_depends_on_those_before_it_alone():
    """Of one block; and the keys and values that decoding keeps are those of all at once."""
    block = flow("tarflow").double().blocks[0]
    x, v = torch.randn(1, 8, 12, dtype=torch.float64), torch.randn(1, 6, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda y: block.encode(y, v)[0], x)[0, :, :, 0]
    seen = jacobian.abs().amax((1, 3))  # of output i on input j
    assert not seen.triu(1).any()
    assert seen.tril(-1)[1:].amax(1).min() > 1e-4
    eye = jacobian[0, :, 0]
    torch.testing.assert_close(eye, torch.eye(12, dtype=torch.float64))  # the first stays


def test_bits_of_the_identity_are_those_of_a_normal_distribution(kind):
    model, noise = NormalizingFlow(flow(kind, 0, False)), Noise(3, torch.arange(4))
    image = torch.randint(256, (4, *SHAPE), dtype=torch.uint8)
    y = dequantised(to_signal(image), noise).double()
    nats = 0.5 * (y.square() + math.log(2 * math.pi)) - math.log(2 / 255)
    found = model.bits({"image": image}, noise)
    total = found["prior"] + found["volume"]
    torch.testing.assert_close(total.double(), nats.flatten(1).mean(1) / math.log(2))
    assert model.loss({"image": image}, noise)[0].equal(total)


def test_uniform_noise_has_8_bits_by_the_flow_that_makes_it_normal():
    """z = Φ⁻¹ of the dequantised level: all densities are 1/256 of a level's width."""

    class Uniform(nn.Module):
        shape = SHAPE

        def encode(self, x, vector=None):
            place = (x.double() * 127.5 + 128) / 256
            z = torch.special.ndtri(place)
            slope = (0.5 * z.square()).exp() * math.sqrt(2 * math.pi) * 127.5 / 256
            return z, slope.log().flatten(1).sum(1)

    image = torch.randint(256, (4, *SHAPE), dtype=torch.uint8)
    found = NormalizingFlow(Uniform()).bits({"image": image}, Noise(0, torch.arange(4)))
    torch.testing.assert_close(sum(found.values()), torch.full((4,), 8.0, dtype=torch.float64))


def test_dequantised_pixels_are_anywhere_in_their_level():
    x = to_signal(torch.full((2000, 1, 4, 4), 7, dtype=torch.uint8))
    levels = (dequantised(x, Noise(0, torch.arange(2000))) + 1) * 127.5
    assert 6.5 <= levels.min() < 6.501
    assert 7.499 < levels.max() <= 7.5
    assert float(levels.mean()) == pytest.approx(7, abs=0.01)
    assert float(levels.var()) == pytest.approx(1 / 12, rel=0.02)


def test_a_picture_is_a_function_of_its_id_and_of_its_class(kind):
    model = NormalizingFlow(flow(kind, 0.1), ClassConditioner(4, 6)).eval()
    noise, labels = Noise(1, torch.arange(6)), torch.tensor([0, 1, 2, 3, 0, 1])
    drawn = model.sample(LatentSampler(0.3), noise, {"label": labels})
    alone = model.sample(LatentSampler(0.3), Noise(1, torch.tensor([4])), {"label": labels[4:5]})
    assert (drawn[4].int() - alone[0].int()).abs().max() <= 1
    assert torch.equal(drawn, model.sample(LatentSampler(0.3), noise))  # classes in turn
    assert not torch.equal(drawn, model.sample(LatentSampler(0.3), noise, {"label": 0 * labels}))


def test_noise_that_was_learned_is_taken_away_again(kind):
    """The identity says N(0, I) of noisy pictures y: their mean is y − σ²·y."""
    model = NormalizingFlow(flow(kind, 0, False), augmentation=0.5)
    z = normals("z")
    with torch.inference_mode():
        torch.testing.assert_close(model.generate(z.clone()), 0.75 * z)
    image, noise = torch.randint(256, (5, *SHAPE), dtype=torch.uint8), Noise(0, torch.arange(5))
    y = to_signal(image) + 0.5 * noise.normal("augmentation", SHAPE)
    _, terms = model.loss({"image": image}, noise)
    expected = (y.square() + math.log(2 * math.pi)).flatten(1).mean(1) / math.log(4)
    torch.testing.assert_close(terms["prior"], expected)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="patch 3 does not divide the 8×4 pixels"):
        TarFlow(SHAPE, patch=3)
    with pytest.raises(ValueError, match="heads 3 do not divide the width 16"):
        TarFlow(SHAPE, width=16, heads=3)
    with pytest.raises(ValueError, match="8×4 pixels cannot be halved 3 times"):
        RealNVP(SHAPE, scales=3)
    with pytest.raises(ValueError, match="takes no captions or pictures"):
        RealNVP(SHAPE, ConditionShape(spatial=1))
    parts = {"network": flow("realnvp"), "conditioning": None, "augmentation": 0}
    with pytest.raises(ValueError, match=r"for \(3, 8, 4\), not for \(3, 8, 8\)"):
        NormalizingFlow.of(parts, (3, 8, 8))
