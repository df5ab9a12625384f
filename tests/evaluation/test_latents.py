"""The numbers of an autoencoder's sheet, on input for which they are known."""

import math

import pytest
import torch
from torch import nn

from unnoise.diffusion.noise import Noise
from unnoise.evaluation import estimates, latents
from unnoise.evaluation.autoencoder_numbers import NO_EXTRACTOR, numbers, text
from unnoise.evaluation.autoencoder_sheet import principal
from unnoise.evaluation.reconstructions import Block, Pictures, look
from unnoise.models.autoencoder import AutoencoderModel
from unnoise.networks.autoencoders import FSQ, KLAutoencoder, Posterior, VQAutoencoder


def normals(n, *shape, name="x"):
    return Noise(0, torch.arange(n)).normal(name, shape)


def pixels(n, side=16):
    return (128 + 40 * normals(n, 3, side, side)).clamp(0, 255).to(torch.uint8)


def test_the_psnr_of_an_error_of_five_levels():
    x = torch.randint(200, (3, 3, 8, 8), dtype=torch.uint8)
    expected = torch.full((3,), 20 * math.log10(255 / 5), dtype=torch.float64)
    torch.testing.assert_close(latents.psnr(x, x + 5), expected)
    best = 10 * math.log10(12 * 255**2)
    assert latents.psnr(x, x).tolist() == pytest.approx([best] * 3)


def test_the_ssim_of_equal_pictures_is_1_and_each_is_its_own():
    x = pixels(4)
    torch.testing.assert_close(latents.ssim(x, x), torch.ones(4))
    other = torch.cat((x[:2], 255 - x[2:]))
    found = latents.ssim(x, other)
    assert found[:2].tolist() == pytest.approx([1, 1])
    assert (found[2:] < 0).all()
    torch.testing.assert_close(latents.ssim(x[3:], other[3:]), found[3:])


@pytest.mark.parametrize(
    ("counts", "share", "perplexity"),
    [([7] * 12, 1, 12), ([5, 0, 0, 0], 0.25, 1), ([1, 1, 0, 0], 0.5, 2)],
)
def test_usage_and_perplexity_of_constructed_codes(counts, share, perplexity):
    found = latents.usage(torch.tensor(counts))
    assert found == pytest.approx((share, perplexity))


@pytest.mark.parametrize("shape", [(8, 8), (16, 24), (32, 16)])
def test_the_slope_of_white_noise_is_0_and_of_a_field_of_1_over_f_minus_2(shape):
    white = normals(400, 2, *shape)
    power = latents.power(white)
    torch.testing.assert_close(power.mean((1, 2)), white.double().square().mean((1, 2, 3)))
    assert abs(latents.spectrum(power.mean(0)).slope) < 0.06
    y, x = (torch.arange(n, dtype=torch.float64) / n for n in shape)
    f = (y[:, None].square() + x.square()).sqrt()
    f[0, 0] = 1
    signs = normals(5, 2, *shape).sign().double()
    rows, columns = (latents._cosines(n) for n in shape)
    field = rows.T @ (signs / f) @ columns  # its coefficients are ±1/f
    found = latents.spectrum(latents.power(field).mean(0))
    assert found.slope == pytest.approx(-2, abs=1e-9)
    assert float(found.cycles[0]) == pytest.approx(0.5, rel=0.2)
    assert float(found.cycles[-1]) < min(shape) / 2


def test_a_latent_of_two_places_has_no_slope():
    with pytest.raises(ValueError, match="sides of 3 or more"):
        latents.slope(torch.ones(4, 2, 2), 4)


def test_groups_are_even_and_not_every_tenth():
    found = estimates.groups(205)
    assert sorted(found.bincount().tolist()) == [20] * 5 + [21] * 5
    assert len(set(found[::10].tolist())) > 3
    assert sorted(estimates.groups(4).tolist()) == [0, 1, 2, 3]


def test_the_jackknife_of_a_mean_is_its_standard_error():
    x = normals(10, 1)[:, 0].double()
    value, error = estimates.jackknife(lambda kept: float(x[kept].mean()), 10)
    assert value == pytest.approx(float(x.mean()))
    assert error == pytest.approx(float(x.std()) / math.sqrt(10))


def test_the_distance_of_features_that_are_shifted_is_the_shift_squared():
    x = normals(60, 5).double()
    assert latents.paired_distance(x, x) == pytest.approx((0, 0), abs=1e-9)
    found = latents.paired_distance(x, x + torch.tensor([3.0, 4, 0, 0, 0]))
    assert found == pytest.approx((25, 0), abs=1e-6)


class Linear(KLAutoencoder):
    """mean = M·x at each place, with variance 1, and back by M⁻¹ where there is one."""

    def __init__(self, matrix):
        super().__init__(3, 3, 4, (1,), 1)
        self.matrix = nn.Parameter(torch.tensor(matrix))

    def posterior(self, x):
        mean = torch.einsum("ij,bjhw->bihw", self.matrix, x)
        return Posterior(mean, torch.zeros_like(mean))

    def decode(self, z):
        return torch.einsum("ij,bjhw->bihw", torch.linalg.pinv(self.matrix), z)


def sheet(autoencoder, pictures, batch_size=64, parts=1, extractor=None):
    """The rows by name and channel, of blocks of pictures that were looked at by themselves."""
    model = AutoencoderModel(autoencoder, pictures.shape[1:]).eval().requires_grad_(False)
    rows = torch.arange(len(pictures)).chunk(parts)
    blocks = [
        look(model, Pictures(pictures[k], estimates.groups(len(pictures))[k]), extractor,
             batch_size, shows=k[0] == 0)
        for k in rows
    ]  # fmt: skip
    found = list(numbers(Block.whole(blocks), extractor))
    assert len(text(found).splitlines()) > 10
    return {(row.name, row.channel): row for row in found}


def value(rows, name, channel=None):
    return rows[name, channel].estimate.value


def test_the_kl_of_a_unit_normal_about_1_is_half_a_nat_an_element():
    autoencoder = KLAutoencoder(3, 2, 4, (1, 2), 1)
    with torch.no_grad():
        autoencoder.quant.weight.zero_()
        autoencoder.quant.bias.copy_(torch.tensor([1.0, 1, 0, 0]))
    rows = sheet(autoencoder, pixels(12))
    assert value(rows, "KL, bits a dimension") == pytest.approx(0.5 / math.log(2))
    assert value(rows, "KL, bits a picture") == pytest.approx(128 * 0.5 / math.log(2))
    assert rows["KL, bits a picture", None].estimate.error == pytest.approx(0, abs=1e-6)
    assert value(rows, "active units") == 0
    for channel in (0, 1):
        found = [value(rows, name, channel) for name in ("mean", "std", "posterior std")]
        assert found == pytest.approx([1, 1, 1])


def test_the_active_units_of_a_linear_autoencoder():
    """Var x is (40/127.5)² = 0.098: 10 times as much is active, a twentieth of the size is not."""
    rows = sheet(Linear([[3.0, 0, 0], [0, 0.05, 0], [0, 0, 0]]), pixels(200))
    assert [value(rows, "active", k) for k in range(3)] == [256, 0, 0]
    assert value(rows, "active units") == pytest.approx(1 / 3)
    assert value(rows, "std", 0) == pytest.approx(math.sqrt(9 * (40 / 127.5) ** 2 + 1), rel=0.01)
    assert value(rows, "slope of the spectrum, latents") == pytest.approx(0, abs=0.1)


def test_an_equivariant_autoencoder_that_loses_nothing_has_the_best_numbers():
    rows = sheet(Linear([[2.0, 1, 0], [0, 1, 0], [0, 0, -1]]), pixels(20))
    assert value(rows, "SSIM") == pytest.approx(1)
    for name in ("PSNR", "equivariance, half size", "equivariance, quarter turn"):
        assert value(rows, name) > 55
    assert rows["rFD", None].estimate is None
    assert rows["rFD", None].note == rows["perceptual distance", None].note == NO_EXTRACTOR


def test_codes_are_counted():
    torch.manual_seed(0)
    rows = sheet(VQAutoencoder(3, FSQ((3, 3)), 4, (1, 2), 1), pixels(8))
    assert value(rows, "code usage") * 9 == pytest.approx(round(value(rows, "code usage") * 9))
    assert 1 <= value(rows, "perplexity") <= 9
    assert not [name for name, _ in rows if "KL" in name or "active" in name]


@pytest.mark.parametrize("kind", ["kl", "fsq"])
def test_the_sheet_does_not_hang_on_batches_or_on_who_looked_at_which_block(kind):
    torch.manual_seed(0)
    shape = (4, (1, 2), 1)
    made = KLAutoencoder(3, 2, *shape) if kind == "kl" else VQAutoencoder(3, FSQ((4, 3)), *shape)
    first, *others = (sheet(made, pixels(23), *how) for how in ((1, 1), (7, 1), (7, 4)))
    for other in others:
        assert first.keys() == other.keys()
        for key, row in first.items():
            if row.estimate is not None:
                expected = pytest.approx(row.estimate.value, rel=1e-4, abs=1e-5)
                assert other[key].estimate.value == expected, key


def test_colours_of_latents_are_their_components():
    z = normals(6, 5, 4, 4)
    z[:, 2] *= 100
    seen = principal(z)
    assert seen.shape == (6, 3, 4, 4)
    one = torch.corrcoef(torch.stack((seen[:, 0].flatten(), z[:, 2].double().flatten())))[0, 1]
    assert abs(float(one)) > 0.95  # but for what is clamped
    assert principal(z[:, :2])[:, 2].eq(0.5).all()
