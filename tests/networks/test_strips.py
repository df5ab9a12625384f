"""Decoding in slices and in strips is decoding, in less memory."""

import pytest
import torch
from torch import nn

from unnoise.networks.autoencoders import FSQ, Codebook, KLAutoencoder, VQAutoencoder

HARD = torch.randn(2, 4, 12, 10, generator=torch.Generator().manual_seed(0))
ROWS = torch.linspace(-1, 1, 12)[:, None].expand(12, 10)
SMOOTH = torch.stack([ROWS, -ROWS, ROWS**2, ROWS.flip(0) ** 3]).expand(2, -1, -1, -1)
UNEVEN = torch.where(ROWS < 0, 0.01, 5.0) * HARD
"""Quiet above and loud below: group norms of halves would be far from those of the whole."""
LATENTS = {"hard": HARD, "smooth": SMOOTH, "uneven": UNEVEN, "one colour": torch.ones(2, 4, 12, 10)}


def filled(network: nn.Module) -> nn.Module:
    """Random weights that keep the size of what passes through."""
    generator = torch.Generator().manual_seed(1)
    for weight in network.parameters():
        z = torch.randn(weight.shape, generator=generator)
        weight.data = z * weight[0].numel() ** -0.5 if weight.ndim > 1 else weight.data + 0.1 * z
    return network.eval().requires_grad_(False)


AUTOENCODERS = {
    "kl": filled(KLAutoencoder(3, 4, 16, (1, 2, 2))),
    "one level": filled(KLAutoencoder(3, 4, 16, (1,))),
    "attention": filled(VQAutoencoder(3, Codebook(16, 4), 8, (1, 2, 2), 1, attention_levels=2)),
    "patches": filled(KLAutoencoder(3, 4, 16, (1,), patch=2)),
    "fsq": filled(VQAutoencoder(3, FSQ((5, 5, 5, 5)), 8, (1, 2, 2), 1)),
}


@pytest.mark.parametrize("strips", [2, 3, 5, 48, 1000])
@pytest.mark.parametrize("latent", LATENTS)
@pytest.mark.parametrize("name", AUTOENCODERS)
def test_strips_are_the_whole(name, latent, strips):
    """To 1e-5 of the pictures' range: 255 values are 8e-3 apart."""
    of, z = AUTOENCODERS[name], LATENTS[latent]
    whole = of.decoder(of.post_quant(z))
    found = of.decoder.in_strips(of.post_quant(z), strips)
    assert whole.std() > 0.01
    torch.testing.assert_close(found, whole, rtol=0, atol=1e-5 * float(whole.abs().max()))


def test_what_the_group_norms_of_each_strip_alone_would_do_is_seen():
    """The test above can see a seam: with halves decoded alone the error is 1e4 times as large."""
    of = AUTOENCODERS["kl"]
    z = of.post_quant(UNEVEN)
    whole = of.decoder(z)
    halves = torch.cat([of.decoder(half) for half in z.split(6, dim=2)], dim=2)
    assert (halves - whole).abs().max() > 0.1 * whole.abs().max()


def test_pixels_decide_how_a_batch_is_decoded(monkeypatch):
    of = filled(KLAutoencoder(3, 4, 8, (1, 2, 2)))
    z, calls = HARD.repeat(3, 1, 1, 1), []  # six pictures of 48 × 40 pixels
    whole = of.decoder(of.post_quant(z))
    of.decoder.register_forward_hook(lambda _, args, out: calls.append(len(args[0])))
    in_strips = of.decoder.in_strips
    monkeypatch.setattr(
        of.decoder, "in_strips", lambda z, n: calls.append((len(z), n)) or in_strips(z, n)
    )
    for pixels, expected in (
        (6 * 1920, [6]),
        (6 * 1920 - 1, [5, 1]),
        (2 * 1920, [2, 2, 2]),
        (1920, [1] * 6),
        (1919, [(1, 9)] * 6),
        (100, [(1, 154)] * 6),
    ):
        calls.clear()
        of.decode_pixels = pixels
        with torch.no_grad():
            found = of.decode(z)
        assert calls == expected
        torch.testing.assert_close(found, whole, rtol=0, atol=1e-5 * float(whole.abs().max()))


def test_training_decodes_as_a_whole():
    of = filled(KLAutoencoder(3, 4, 8, (1, 2))).requires_grad_(True)
    of.decode_pixels = 1
    of.decode(HARD).sum().backward()
    assert of.decoder.conv_in.weight.grad is not None
