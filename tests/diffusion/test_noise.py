"""Philox against its authors' known answers; normals and uniforms against their laws."""

import math

import pytest
import torch

from unnoise.diffusion.noise import Noise, philox


@pytest.mark.parametrize(
    ("counter", "key", "answer"),
    [
        ([0] * 4, (0, 0), [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        (
            [0xFFFFFFFF] * 4,
            (0xFFFFFFFF, 0xFFFFFFFF),
            [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD],
        ),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            (0xA4093822, 0x299F31D0),
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_known_answers(counter, key, answer):
    """The vectors published with Random123 (kat_vectors, philox4x32-10)."""
    assert philox(torch.tensor(counter), key).tolist() == answer


def test_normals_are_standard_normal():
    """Moments and the tail of 4 million draws, each within 4 standard errors."""
    z = Noise(7, torch.arange(1000)).normal("eps", (4000,)).double()
    n = z.numel()
    assert abs(z.mean()) < 4 / math.sqrt(n)
    assert abs(z.var() - 1) < 4 * math.sqrt(2 / n)
    assert abs((z**3).mean()) < 4 * math.sqrt(15 / n)
    assert abs((z**4).mean() - 3) < 4 * math.sqrt(96 / n)
    tail = math.erfc(3 / math.sqrt(2))
    assert abs((z.abs() > 3).double().mean() - tail) < 4 * math.sqrt(tail / n)
    neighbours = (z[:, 1:] * z[:, :-1]).mean(), (z[1:] * z[:-1]).mean()
    assert all(abs(c) < 4 / math.sqrt(n) for c in neighbours)


def test_uniforms_are_uniform():
    u = Noise(7, torch.arange(1_000_000)).uniform("time").double()
    assert u.min() >= 0
    assert u.max() < 1
    assert abs(u.mean() - 0.5) < 4 * math.sqrt(1 / 12 / 1e6)
    assert abs(u.var() - 1 / 12) < 4 * math.sqrt(1 / 180 / 1e6)


def test_a_sample_depends_on_its_own_id_only():
    ids = torch.tensor([3, 17, 2**40 + 17, 5])
    together = Noise(1, ids).normal("eps", (3, 5, 5), draw=9)
    for row, one in enumerate(ids):
        assert torch.equal(together[row], Noise(1, one[None]).normal("eps", (3, 5, 5), draw=9)[0])


def test_seed_purpose_draw_and_id_all_matter():
    ids = torch.arange(2)
    base = Noise(0, ids).normal("eps", (64,))
    others = [
        Noise(1, ids).normal("eps", (64,)),
        Noise(0, ids).normal("x_T", (64,)),
        Noise(0, ids).normal("eps", (64,), draw=1),
        Noise(0, ids + 2**32).normal("eps", (64,)),
        base.flip(0),
    ]
    for other in others:
        assert abs(torch.corrcoef(torch.stack((base.flatten(), other.flatten())))[0, 1]) < 0.4


def test_normals_continue_draw_by_draw():
    noise = Noise(0, torch.arange(3))
    fresh = noise.normals("sampler", (8,))
    for draw in range(3):
        assert torch.equal(fresh(), noise.normal("sampler", (8,), draw))
