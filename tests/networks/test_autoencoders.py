"""Autoencoders against diffusers' and against closed forms."""

import math

import pytest
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, VQModel
from torch import nn

from unnoise.diffusion.noise import Noise
from unnoise.networks.adversarial import PatchDiscriminator
from unnoise.networks.autoencoders import (
    FSQ,
    Codebook,
    KLAutoencoder,
    Posterior,
    VQAutoencoder,
    from_diffusers,
)

X = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1


def parameters(make):
    with torch.device("meta"):
        return sum(p.numel() for p in make().parameters())


@pytest.mark.parametrize(
    ("make", "count"),
    [
        (lambda: KLAutoencoder(3), 83_653_863),  # Stable Diffusion's
        (lambda: KLAutoencoder(3).encoder, 34_163_592),
        (lambda: KLAutoencoder(3).decoder, 49_490_179),
        (lambda: KLAutoencoder(3, 3, multipliers=(1, 2, 4)), 55_312_063),  # kl-f4
        (lambda: KLAutoencoder(3, 4, 32, (1, 2)), 843_847),
        (lambda: KLAutoencoder(3, 4, 32, (1, 2, 2)), 1_288_263),
        (lambda: VQAutoencoder(3, Codebook(8192, 3)), 55_322_782 - 8192 * 3),  # vq-f4
        (
            lambda: VQAutoencoder(3, Codebook(16384, 4), 128, (1, 2, 2, 4), attention_levels=1),
            67_717_295 - 16384 * 4,  # vq-f8
        ),
        (lambda: PatchDiscriminator((3, 64, 64), layers=1), 136_513),
        (lambda: PatchDiscriminator((3, 64, 64), layers=2), 663_361),
        (lambda: PatchDiscriminator((3, 64, 64), layers=3), 2_765_633),
    ],
)
def test_parameters_are_those_of_the_published_networks(make, count):
    """Codebooks are no parameters here; they are counted there."""
    assert parameters(make) == count


def randomised(network):
    generator = torch.Generator().manual_seed(1)
    for weight in network.parameters():
        weight.data.normal_(std=0.2, generator=generator)
    return network.eval()


def kinds(levels, attending):
    down = ["DownEncoderBlock2D"] * (levels - attending) + ["AttnDownEncoderBlock2D"] * attending
    up = ["AttnUpDecoderBlock2D"] * attending + ["UpDecoderBlock2D"] * (levels - attending)
    return {"down_block_types": down, "up_block_types": up}


OLD = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def renamed(state):
    """As diffusers wrote them before 0.17."""
    found = {}
    for name, value in state.items():
        for new, old in OLD.items():
            name = name.replace(f".{new}.", f".{old}.")
        found[name] = value
    return found


@pytest.mark.parametrize("old", [False, True])
def test_the_same_weights_give_diffusers_posterior_and_decoding(old):
    theirs = AutoencoderKL(block_out_channels=(8, 16, 16), layers_per_block=2, norm_num_groups=2,
                           latent_channels=4, **kinds(3, 0))  # fmt: skip
    theirs, ours = randomised(theirs), KLAutoencoder(3, 4, 8, (1, 2, 2), norm_groups=2)
    state = renamed(theirs.state_dict()) if old else theirs.state_dict()
    ours.load_state_dict(from_diffusers(state, ours))
    with torch.no_grad():
        expected, found = theirs.encode(X).latent_dist, ours.posterior(X)
        torch.testing.assert_close(found.mean, expected.mean, rtol=0, atol=1e-5)
        torch.testing.assert_close(found.logvar, expected.logvar, rtol=0, atol=1e-5)
        torch.testing.assert_close(found.kl, expected.kl())
        decoded = theirs.decode(expected.mean).sample
        torch.testing.assert_close(ours.decode(found.mean), decoded, rtol=0, atol=1e-5)
        assert torch.equal(ours.encode(X), found.mean)
        assert torch.equal(ours(X)[0], ours.decode(found.mean))
    assert found.mean.shape[1:] == ours.latent_shape(X.shape[1:]) == (4, 4, 6)


def test_the_same_weights_give_diffusers_codes():
    theirs = VQModel(block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=2,
                     latent_channels=3, vq_embed_dim=3, num_vq_embeddings=32,
                     **kinds(2, 1))  # fmt: skip
    theirs = randomised(theirs)
    ours = VQAutoencoder(3, Codebook(32, 3), 8, (1, 2), 1, attention_levels=1, norm_groups=2)
    ours.load_state_dict(from_diffusers(theirs.state_dict(), ours))
    with torch.no_grad():
        z, _, (_, _, codes) = theirs.quantize(theirs.encode(X).latents)
        found = ours.latent(X)
        assert torch.equal(found.codes.flatten(), codes.flatten())
        torch.testing.assert_close(found.z, z)
        torch.testing.assert_close(ours(X)[0], theirs(X).sample, rtol=0, atol=1e-5)
    assert len(codes.unique()) > 5


def test_weights_of_another_architecture_are_refused():
    theirs = AutoencoderKL(block_out_channels=(8,), norm_num_groups=2)
    with pytest.raises(KeyError, match="this is another network"):
        from_diffusers(theirs.state_dict(), KLAutoencoder(3, 4, 8, (1, 2)))


def test_weights_that_would_be_left_over_are_named():
    theirs = AutoencoderKL(block_out_channels=(8,), layers_per_block=2, norm_num_groups=2)
    ours = KLAutoencoder(3, 4, 8, (1,), 1, norm_groups=2)
    with pytest.raises(ValueError, match=r"has no place for .*encoder\.down_blocks\.0\.resnets\.1"):
        from_diffusers(theirs.state_dict(), ours)


def test_beside_patches_of_one_level_stands_their_best_linear_code():
    """With the principal components there and all layers silent, the error is what they leave."""
    ours = KLAutoencoder(3, 4, 8, (1,), norm_groups=2, patch=2)
    pixels = F.pixel_unshuffle(X, 2).movedim(1, 3).flatten(0, 2)
    mean, (values, vectors) = pixels.mean(0), torch.linalg.eigh(pixels.T.cov(correction=0))
    components = vectors[:, -4:].T
    with torch.no_grad():
        for weight in ours.parameters():
            weight.zero_()
        ours.quant.weight[:, :, 0, 0] = torch.eye(8)
        ours.post_quant.weight[:, :, 0, 0] = torch.eye(4)
        ours.encoder.linear.weight[:4, :, 0, 0] = components
        ours.encoder.linear.bias[:4] = -components @ mean
        ours.decoder.linear.weight[:, :, 0, 0] = components.T
        ours.decoder.linear.bias[:] = mean
        error = (ours(X)[0] - X).square().mean()
    torch.testing.assert_close(12 * error, values[:-4].sum(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("quantizer", [None, FSQ((8, 5, 5, 5))])
def test_in_patches_it_is_the_autoencoder_of_the_patches_pixels(quantizer):
    """Of 2 × 2 pixels of 3 colours that of 12 colours, with the same weights."""

    def network(colours, **options):
        if quantizer is None:
            return KLAutoencoder(colours, 4, 8, (1, 2), norm_groups=2, **options)
        return VQAutoencoder(colours, quantizer, 8, (1, 2), norm_groups=2, **options)

    ours, stacked = randomised(network(3, patch=2)), network(12)
    stacked.load_state_dict(ours.state_dict())
    with torch.no_grad():
        expected, z = stacked(F.pixel_unshuffle(X, 2))
        found, mine = ours(X)
        torch.testing.assert_close(mine.z, z.z)
        torch.testing.assert_close(F.pixel_unshuffle(found, 2), expected)
        ours.decode_pixels = 16 * 24 // 3  # less than a picture: in strips
        torch.testing.assert_close(ours.decode(mine.z), found, rtol=1e-4, atol=1e-4)
    assert mine.z.shape[1:] == ours.latent_shape((3, 16, 24)) == (4, 4, 6)
    with pytest.raises(ValueError, match="parted into patches of 2 and halved 1 times"):
        ours.latent_shape((3, 16, 26))


def test_the_divergence_is_that_of_the_closed_form():
    one = Posterior(torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1))
    assert float(one.kl) == 0.5
    mean, logvar = torch.randn(2, 3, 4, 5, 6, dtype=torch.float64)
    normal = torch.distributions.Normal(mean, (0.5 * logvar).exp())
    standard = torch.distributions.Normal(torch.zeros_like(mean), 1.0)
    expected = torch.distributions.kl_divergence(normal, standard).flatten(1).sum(1)
    torch.testing.assert_close(Posterior(mean, logvar).kl, expected)


def test_the_divergence_is_the_mean_log_ratio_of_what_is_drawn():
    """E ln q(z) − ln p(z) over 200,000 draws, within 4 standard errors."""
    mean, logvar = torch.tensor([0.7, -0.3]), torch.tensor([-1.0, 0.5])
    posterior = Posterior(
        *(p.reshape(1, 2, 1, 1).expand(200_000, -1, -1, -1) for p in (mean, logvar))
    )
    z = posterior.draw(Noise(0, torch.arange(200_000))).flatten(1).double()
    q = torch.distributions.Normal(mean.double(), (0.5 * logvar.double()).exp())
    ratio = (q.log_prob(z) - torch.distributions.Normal(0.0, 1.0).log_prob(z)).sum(1)
    error = ratio.std() / math.sqrt(len(ratio))
    assert abs(ratio.mean() - posterior.kl[0]) < 4 * error < 0.02


def test_what_is_drawn_is_a_function_of_the_picture_s_id_alone():
    network = randomised(KLAutoencoder(3, 4, 8, (1, 2), norm_groups=2))
    torch.manual_seed(1)
    together = network.encode(X, Noise(0, torch.tensor([4, 9])))
    torch.manual_seed(2)
    alone = network.encode(X[1:], Noise(0, torch.tensor([9])))
    torch.testing.assert_close(together[1:], alone, rtol=0, atol=1e-5)
    other = network.encode(X[1:], Noise(0, torch.tensor([8])))
    assert (alone - other).abs().mean() > 0.1
    found = network.posterior(X)
    drawn = found.draw(Noise(0, torch.tensor([4, 9])))
    torch.testing.assert_close(drawn, together)


def test_only_what_can_be_compiled_is():
    """Each side is one graph; with the noise between them there would be more."""
    network, calls = randomised(KLAutoencoder(3, 4, 8, (1, 2), norm_groups=2)), []

    def counted(graph, inputs):
        calls.append(graph)
        return graph.forward

    expected = network(X, Noise(0, torch.arange(2)))[0]
    network.compile(backend=counted, fullgraph=True)
    torch.testing.assert_close(network(X, Noise(0, torch.arange(2)))[0], expected)
    assert len(calls) == 2


def test_variances_are_held_within_bounds():
    network = KLAutoencoder(3, 1, 4, (1,))
    nn.init.zeros_(network.quant.weight)
    for bias, bound in ((-50.0, -30.0), (50.0, 20.0), (3.0, 3.0)):
        nn.init.constant_(network.quant.bias, bias)
        assert set(network.posterior(X).logvar.unique().tolist()) == {bound}


def test_pictures_that_cannot_be_encoded_are_refused():
    network = KLAutoencoder(3, 4, 8, (1, 2, 2))
    with pytest.raises(ValueError, match="18×16 pixels cannot be halved 2 times"):
        network.latent_shape((3, 18, 16))
    with pytest.raises(ValueError, match="is for 3 channels, not 1"):
        network.latent_shape((1, 16, 16))
    with pytest.raises(ValueError, match="multipliers is empty"):
        KLAutoencoder(3, multipliers=())


@pytest.mark.parametrize("quantizer", [Codebook(64, 4), FSQ((8, 5, 5, 5))])
def test_codes_are_what_the_decoder_is_given(quantizer):
    network = randomised(VQAutoencoder(3, quantizer, 8, (1, 2), norm_groups=2))
    found = network.latent(X)
    torch.testing.assert_close(found.z, quantizer.vectors_of(found.codes))
    assert torch.equal(network.encode(X, Noise(0, torch.arange(2))), network.encode(X))
    assert network.latent_shape((3, 16, 24)) == found.z.shape[1:] == (4, 8, 12)
    assert network.bounded == isinstance(quantizer, FSQ)
    assert not network.bounded or found.z.abs().max() <= 1


def test_a_linear_autoencoder_learns_the_principal_subspace():
    """What a linear autoencoder keeps is the span of the first components (Baldi & Hornik 1989)."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.linalg.qr(torch.randn(12, 12, generator=generator)).Q
    scales = torch.tensor([3.0, 2.0, 1.5, *[0.3] * 9])
    x = (torch.randn(512, 12, generator=generator) * scales) @ mixing.T
    x = x[:, :, None, None]
    network = KLAutoencoder(12, 3, 4, (1,))
    network.encoder, network.decoder = nn.Identity(), nn.Conv2d(3, 12, 1)
    network.quant = nn.Conv2d(12, 6, 1)
    adam = torch.optim.Adam(network.parameters(), lr=0.03)
    for _ in range(200):
        loss = (network(x)[0] - x).square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    decoding = network.decoder.weight[..., 0, 0] @ network.post_quant.weight[..., 0, 0]
    kept = torch.linalg.qr(decoding.detach())
    first = torch.pca_lowrank(x.flatten(1), 12, niter=8)[2][:, :3]
    cosines = torch.linalg.svdvals(kept.Q.T @ first)
    assert cosines.min() > 0.999
    left = x.flatten(1).square().sum() - torch.linalg.svdvals(x.flatten(1))[:3].square().sum()
    assert loss.item() == pytest.approx(float(left) / x.numel(), rel=0.05)


@pytest.mark.parametrize(("layers", "pixels"), [(1, 16), (2, 34), (3, 70)])
def test_a_score_sees_a_patch(layers, pixels):
    """Of the convolutions; what normalises looks at the whole picture."""
    network = PatchDiscriminator((1, 128, 128), channels=4, layers=layers)
    for name, part in network.layers.named_children():
        if isinstance(part, nn.GroupNorm):
            setattr(network.layers, name, nn.Identity())
    x = torch.randn(1, 1, 128, 128, requires_grad=True)
    scores = network(x)
    (gradient,) = torch.autograd.grad(scores[0, scores.shape[1] // 2, scores.shape[2] // 2], x)
    seen = gradient[0, 0].abs().amax(0).nonzero()
    assert int(seen.max() - seen.min()) + 1 == pixels


def test_scores_are_each_picture_s_own():
    network = PatchDiscriminator((3, 16, 24), channels=4, layers=2)
    torch.testing.assert_close(network(X)[:1], network(X[:1]))
    with pytest.raises(ValueError, match="16×16 pixels are too few for 3 layers"):
        PatchDiscriminator((3, 16, 16), layers=3)
    for size, layers in ((6, 1), (12, 2), (24, 3), (26, 3)):
        network = PatchDiscriminator((1, size, size), channels=2, layers=layers)
        assert network(torch.zeros(1, 1, size, size)).shape[1] >= 1
