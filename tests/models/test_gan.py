import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from unnoise.diffusion.noise import Noise
from unnoise.diffusion.samplers import DDIM, Sampler
from unnoise.models.gan import (
    GAN,
    discriminator_loss,
    generator_loss,
    gradient_penalty,
    relativistic,
)
from unnoise.networks.adversarial import Discriminator, Generator, LatentSampler
from unnoise.networks.conditioning import ClassConditioner, ConditionShape

SHAPE = (3, 8, 4)


def gan():
    torch.manual_seed(0)
    generator = Generator(SHAPE, latent=5, channels=4, scales=1)
    for weight in generator.parameters():
        nn.init.normal_(weight, std=0.3)
    return GAN(generator)


def test_the_relativistic_loss_is_ln_2_where_scores_are_equal():
    scores = torch.randn(10)
    torch.testing.assert_close(relativistic(scores, scores), torch.full((10,), math.log(2)))


def test_the_relativistic_losses_of_both_players_see_the_difference_only():
    """softplus(−d) and softplus(d) = softplus(−d) + d, whatever is added to both scores."""
    real, fake = torch.randn(2, 10, dtype=torch.float64)
    d = real - fake
    torch.testing.assert_close(relativistic(fake, real) - relativistic(real, fake), d)
    torch.testing.assert_close(relativistic(real + 7, fake + 7), relativistic(real, fake))


def test_the_plain_losses_are_cross_entropies():
    real, fake = torch.randn(2, 10, dtype=torch.float64)
    entropy = partial(F.binary_cross_entropy_with_logits, reduction="none")
    one, zero = torch.ones_like(real), torch.zeros_like(real)
    found = discriminator_loss("plain", real, fake)
    torch.testing.assert_close(found, entropy(real, one) + entropy(fake, zero))
    torch.testing.assert_close(generator_loss("plain", fake, real), entropy(fake, one))
    torch.testing.assert_close(discriminator_loss("plain", zero, zero), 2 * math.log(2) * one)


def test_the_pairing_chooses_the_losses():
    real, fake = torch.randn(2, 10)
    assert discriminator_loss("relativistic", real, fake).equal(relativistic(real, fake))
    assert generator_loss("relativistic", fake, real).equal(relativistic(fake, real))


def test_pictures_and_scores_depend_on_the_class():
    torch.manual_seed(0)
    condition, sizes = ConditionShape(vector=6), {"channels": 4, "scales": 1}
    model = GAN(Generator(SHAPE, 5, condition=condition, **sizes), ClassConditioner(3, 6))
    discriminator = Discriminator(SHAPE, condition=condition, **sizes)
    x, v = torch.randn(4, *SHAPE), torch.randn(4, 6)
    assert discriminator(x, v).equal(discriminator(x))  # at first
    for weight in (*model.parameters(), *discriminator.parameters()):
        nn.init.normal_(weight, std=0.3)
    assert not torch.allclose(discriminator(x, v), discriminator(x, 2 * v))
    noise, label = Noise(1, torch.arange(4)), torch.tensor([0, 1, 2, 0])
    drawn = model.sample(LatentSampler(), noise, {"label": label})
    assert torch.equal(drawn, model.sample(LatentSampler(), noise))  # classes in turn
    assert not torch.equal(drawn, model.sample(LatentSampler(), noise, {"label": 0 * label}))


def test_the_penalty_of_a_linear_map_is_half_gamma_times_its_square():
    w, x = torch.randn(3, 8, 4, dtype=torch.float64), torch.randn(6, 3, 8, 4, dtype=torch.float64)
    x.requires_grad_()
    penalty = gradient_penalty((x * w).flatten(1).sum(1) + 3, x, gamma=0.7)
    torch.testing.assert_close(penalty, 0.35 * w.square().sum().expand(6))


def test_a_picture_is_a_function_of_its_id():
    model, sampler = gan(), LatentSampler()
    together = model.sample(sampler, Noise(1, torch.arange(6)))
    assert together.dtype == torch.uint8
    assert together.float().std(0).mean() > 5
    alone = torch.cat([model.sample(sampler, Noise(1, torch.tensor([k]))) for k in range(6)])
    assert (together.int() - alone.int()).abs().max() <= 1
    assert not torch.equal(together, model.sample(sampler, Noise(2, torch.arange(6))))


def test_the_scale_shortens_the_latents():
    model, noise = gan(), Noise(1, torch.arange(6))
    z = noise.normal("z", (5,))
    torch.testing.assert_close(model.latents(noise), z)
    narrow = model.sample(LatentSampler(0.5), noise)
    assert torch.equal(narrow, model.codec.decode(model.generate(0.5 * z)))
    assert not torch.equal(narrow, model.sample(LatentSampler(), noise))


def test_the_watcher_sees_the_signal_once():
    seen, noise = [], Noise(1, torch.arange(3))
    model = gan()
    drawn = model.sample(LatentSampler(), noise, watch=lambda x, level: seen.append((x, level)))
    ((x, level),) = seen
    assert torch.equal(model.codec.decode(x), drawn)
    assert (float(level.alpha), float(level.sigma)) == (1, 0)
    assert model.steps(LatentSampler()) == 1


def test_what_only_a_diffusion_model_can_do_is_refused():
    model, noise = gan(), Noise(0, torch.arange(1))
    with pytest.raises(ValueError, match="sampler=latent, not with Sampler"):
        model.sample(Sampler(DDIM()), noise)
    for steps, guidance in ((3, None), (None, 2.0)):
        with pytest.raises(ValueError, match="a GAN draws without steps and guidance"):
            model.changed(LatentSampler(), steps, guidance)
    with pytest.raises(ValueError, match=r"for \(3, 8, 4\), not for \(3, 8, 8\)"):
        GAN.of({"network": model.generator, "conditioning": None}, (3, 8, 8))


@pytest.mark.parametrize("network", [Generator, Discriminator])
def test_sizes_that_cannot_be_halved_are_refused(network):
    with pytest.raises(ValueError, match="8×6 pixels cannot be halved 2 times"):
        network((3, 8, 6), scales=2)


def test_the_discriminator_is_twice_differentiable():
    torch.manual_seed(0)
    network = Discriminator(SHAPE, channels=4, scales=1).double()
    for weight in network.parameters():
        nn.init.normal_(weight, std=0.3)
    x = torch.randn(2, *SHAPE, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(lambda x: gradient_penalty(network(x), x, 1.0), (x,))
