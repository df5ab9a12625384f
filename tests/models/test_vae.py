"""The VAE against closed forms: linear ones are principal components, masses sum to 1."""

import math

import pytest
import torch
from torch import nn

from unnoise.diffusion.likelihood import level_log_probability
from unnoise.diffusion.noise import Noise
from unnoise.diffusion.samplers import DDIM, Sampler
from unnoise.models.vae import LOG_CDF, VAE
from unnoise.networks.adversarial import LatentSampler
from unnoise.networks.conditioning import ClassConditioner, ConditionShape
from unnoise.networks.variational import VariationalNetwork

SHAPE = (3, 8, 4)


def vae(scale="element", conditional=False, **keys):
    torch.manual_seed(0)
    condition = ConditionShape(vector=6 if conditional else 0)
    sizes = {"latent": 5, "channels": 4, "scales": 1}
    outputs = 6 if scale == "element" else 3
    network = VariationalNetwork(SHAPE, outputs, condition, **sizes)
    for weight in network.parameters():
        nn.init.normal_(weight, std=0.3)
    return VAE(network, ClassConditioner(4, 6) if conditional else None, scale=scale, **keys)


def batch(n=6, **more):
    image = torch.randint(256, (n, *SHAPE), dtype=torch.uint8, generator=torch.manual_seed(1))
    return {"image": image, **more}


@pytest.mark.parametrize("kind", LOG_CDF)
@pytest.mark.parametrize("scale", [1e-3, 0.01, 0.3, 5.0])
@pytest.mark.parametrize("mean", [-3.0, -1.0, 0.1, 1.2])
def test_the_masses_of_all_levels_sum_to_1(kind, scale, mean):
    x = torch.arange(256, dtype=torch.float64) / 127.5 - 1
    mass = level_log_probability(x, torch.tensor(mean), torch.tensor(scale), LOG_CDF[kind]).exp()
    assert float(mass.sum()) == pytest.approx(1, abs=1e-9)
    assert mass.min() >= 0


def test_a_mass_is_the_difference_of_the_logistic_function():
    x, mean, scale = torch.tensor([0.2 / 127.5, 0.05, 0.03], dtype=torch.float64)
    found = level_log_probability(x, mean, scale, LOG_CDF["logistic"])
    ends = [1 / (1 + math.exp(-float((x + side / 255 - mean) / scale))) for side in (-1, 1)]
    assert float(found.exp()) == pytest.approx(ends[1] - ends[0], rel=1e-9)


@pytest.mark.parametrize("scale", ["channel", "element"])
def test_gradients_are_finite_where_the_mean_is_far_off(scale):
    model = vae(scale)
    with torch.no_grad():
        for weight in model.autoencoder.decoder.out.parameters():
            weight *= 1000
    loss, terms = model.loss(batch(), Noise(0, torch.arange(6)))
    loss.mean().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    assert terms["reconstruction"].min() > 8  # far worse than knowing nothing


def test_beta_weighs_the_divergence_alone():
    one, four = vae(), vae(beta=4.0)
    noise = Noise(0, torch.arange(6))
    loss, terms = one.loss(batch(), noise)
    torch.testing.assert_close(loss, terms["reconstruction"] + terms["kl"])
    expected = terms["reconstruction"] + 4 * terms["kl"]
    torch.testing.assert_close(four.loss(batch(), noise)[0], expected)
    assert four.bits(batch(), noise)["kl"].equal(one.bits(batch(), noise)["kl"])


def test_the_divergence_is_in_bits_a_number():
    model = vae()
    vector = model.vector(None, torch.arange(6))
    posterior = model.autoencoder.posterior(model.codec.encode(batch()["image"]), vector)
    expected = posterior.kl / (3 * 8 * 4) / math.log(2)
    torch.testing.assert_close(model.bits(batch(), Noise(0, torch.arange(6)))["kl"], expected)


def test_a_posterior_that_is_the_prior_costs_nothing():
    model = vae()
    for weight in model.autoencoder.encoder.out.parameters():
        nn.init.zeros_(weight)
    assert not model.bits(batch(), Noise(0, torch.arange(6)))["kl"].any()


def test_bits_are_a_function_of_the_samples_id():
    model, data = vae(), batch()
    together = model.bits(data, Noise(1, torch.arange(6)))["reconstruction"]
    parts = [model.bits({"image": data["image"][k : k + 1]}, Noise(1, torch.tensor([k])))
             for k in range(6)]  # fmt: skip
    torch.testing.assert_close(together, torch.cat([part["reconstruction"] for part in parts]))
    other = model.bits(data, Noise(2, torch.arange(6)))["reconstruction"]
    assert not torch.allclose(together, other)


def test_a_picture_is_a_function_of_its_id_and_of_its_class():
    model, recipe = vae(conditional=True), LatentSampler()
    noise, labels = Noise(1, torch.arange(6)), torch.tensor([0, 1, 2, 3, 0, 1])
    drawn = model.sample(recipe, noise, {"label": labels})
    alone = model.sample(recipe, Noise(1, torch.tensor([4])), {"label": labels[4:5]})
    assert (drawn[4].int() - alone[0].int()).abs().max() <= 1
    assert torch.equal(drawn, model.sample(recipe, noise))  # examples: classes in turn
    assert not torch.equal(drawn, model.sample(recipe, noise, {"label": 0 * labels}))
    named = model.bits(batch(label=labels), noise)["kl"]
    assert not torch.allclose(named, model.bits(batch(label=0 * labels), noise)["kl"])


def test_what_does_not_fit_is_refused():
    network = vae("channel").autoencoder
    parts = {"network": network, "conditioning": None}
    parts |= {"beta": 1.0, "likelihood": "logistic", "scale": "element"}
    with pytest.raises(ValueError, match=r"for \(3, 8, 4\) with 3 outputs, not for \(3, 8, 4\)"):
        VAE.of(parts, SHAPE)
    with pytest.raises(ValueError, match="likelihood is 'uniform', not logistic or normal"):
        VAE.of(parts | {"scale": "channel", "likelihood": "uniform"}, SHAPE)
    with pytest.raises(ValueError, match="a VAE draws with sampler=latent, not with Sampler"):
        vae().check_recipe(Sampler(DDIM()))
    with pytest.raises(ValueError, match="takes no captions or pictures"):
        VariationalNetwork(SHAPE, 3, ConditionShape(tokens=4))
