import math

import pytest
import torch

from unnoise.diffusion.noise import Noise
from unnoise.networks.autoencoders import Transform


def drawn(share, n=600):
    return [Transform.drawn(Noise(3, torch.tensor([step])), share) for step in range(n)]


def normals(n, *shape):
    return Noise(0, torch.arange(n)).normal("x", shape)


def test_what_is_not_changed_is_what_was_given():
    z, x = normals(2, 4, 8, 8), normals(2, 3, 16, 16)
    for same in (Transform(), Transform(0.99), Transform(turns=4)):
        found = same.of(z, x)
        assert found[0] is z
        assert found[1] is x
    assert set(drawn(0)) == {Transform()}


def test_a_share_of_the_steps_is_scaled_and_turned_evenly():
    half, every = drawn(0.5), drawn(1.0)
    changed = [each for each in half if each != Transform()]
    assert len(changed) == pytest.approx(300, abs=4 * math.sqrt(150))
    assert changed == [one for one, other in zip(every, half, strict=True) if one == other]
    scales = torch.tensor([each.scale for each in every])
    assert ((scales >= 0.25) & (scales < 1)).all()
    assert float(scales.mean()) == pytest.approx(0.625, abs=4 * 0.75 / math.sqrt(12 * 600))
    turns = torch.tensor([each.turns for each in every]).bincount(minlength=4)
    assert (turns - 150).abs().max() < 4 * math.sqrt(600 * 3 / 16)
    assert drawn(1.0, 5) == every[:5]


@pytest.mark.parametrize("shape", [(8, 8), (6, 10), (1, 2)])
@pytest.mark.parametrize("scale", [0.25, 0.5, 0.7])
@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_pictures_stay_f_times_as_large_as_their_latents(shape, scale, turns):
    h, w = shape
    z, x = Transform(scale, turns).of(normals(2, 4, h, w), normals(2, 3, 4 * h, 4 * w))
    assert x.shape[2:] == (4 * z.shape[2], 4 * z.shape[3])
    expected = [max(1, round(scale * side)) for side in shape]
    assert [*z.shape[2:]] == (expected[::-1] if turns % 2 else expected)


@pytest.mark.parametrize("scale", [0.25, 0.6, 1.0])
@pytest.mark.parametrize("turns", [0, 1, 3])
def test_a_linear_map_of_colours_has_no_loss(scale, turns):
    """Interpolation and turning commute with what acts on each place alike: M⁻¹·T(M·x) = T x."""
    matrix = torch.tensor([[2.0, 1, 0], [0, 1, 0], [0.5, 0, -1]])
    x = normals(3, 3, 12, 16)
    z = torch.einsum("ij,bjhw->bihw", matrix, x)
    changed, like = Transform(scale, turns).of(z, x)
    again = torch.einsum("ij,bjhw->bihw", matrix.inverse(), changed)
    torch.testing.assert_close(again, like, rtol=0, atol=1e-5)


def test_means_of_squares_turn_with_their_picture():
    z = normals(2, 3, 5, 7)
    x = z.repeat_interleave(2, 2).repeat_interleave(2, 3)
    changed, like = Transform(turns=1).of(z, x)
    assert torch.equal(changed.repeat_interleave(2, 2).repeat_interleave(2, 3), like)
    assert torch.equal(Transform(turns=3).of(changed, like)[0], z)
