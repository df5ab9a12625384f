"""Codebooks and finite scalar quantization: nearest codes, gradients, revival."""

import pytest
import torch

from unnoise.diffusion.noise import Noise
from unnoise.networks.autoencoders import FSQ, Codebook

Z = torch.randn(3, 4, 5, 6, generator=torch.Generator().manual_seed(0))


def codebook(size=16, **arguments):
    torch.manual_seed(0)
    return Codebook(size, 4, **arguments)


def test_codes_are_the_nearest_vectors():
    book = codebook()
    found = book(Z)
    rows = Z.movedim(1, -1).reshape(-1, 4)
    nearest = torch.cdist(rows, book.vectors).argmin(1)
    assert torch.equal(found.codes.flatten(), nearest)
    torch.testing.assert_close(found.z.movedim(1, -1).reshape(-1, 4), book.vectors[nearest])
    distance = (rows - book.vectors[nearest]).square().reshape(3, -1).sum(1)
    torch.testing.assert_close(found.penalty, 0.25 * distance)


@pytest.mark.parametrize("quantizer", [codebook(), FSQ((8, 5, 5, 5))])
def test_the_gradient_goes_straight_through(quantizer):
    """To z of a codebook, to what is rounded of an FSQ."""
    z = Z.clone().requires_grad_()
    (found,) = torch.autograd.grad((quantizer(z).z * Z).sum(), z)
    expected = Z
    if isinstance(quantizer, FSQ):
        levels = torch.tensor([8.0, 5, 5, 5])[:, None, None]
        half = (levels - 1) * 0.999 / 2
        offset = torch.tensor([0.5, 0, 0, 0])[:, None, None]
        smooth = ((z + (offset / half).atanh()).tanh() * half - offset) / (levels // 2)
        (expected,) = torch.autograd.grad((smooth * Z).sum(), z)
    torch.testing.assert_close(found, expected)


def test_the_penalty_pulls_latents_and_not_vectors():
    z, book = Z.clone().requires_grad_(), codebook(commitment=0.5)
    found = book(z)
    (gradient,) = torch.autograd.grad(found.penalty.sum(), z)
    torch.testing.assert_close(gradient, z - found.z)
    assert not list(book.parameters())


def test_sums_are_the_same_to_the_bit_each_time():
    """With two threads, of more numbers than are summed by one."""
    z = torch.randn(8, 4, 64, 32, generator=torch.Generator().manual_seed(0))
    book, threads = codebook(4), torch.get_num_threads()
    latent = book(z)
    torch.set_num_threads(2)
    try:
        found = [book.statistics(latent) for _ in range(20)]
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(each, found[0]) for each in found)
    rows = z.movedim(1, -1).reshape(-1, 4).double()
    members = [rows[latent.codes.flatten() == code] for code in range(4)]
    expected = torch.stack([torch.cat((m.sum(0), torch.tensor([len(m)]))) for m in members])
    torch.testing.assert_close(found[0].double(), expected, rtol=1e-5, atol=1e-2)


def test_all_codes_of_an_fsq_are_one_to_one():
    fsq = FSQ((8, 5, 5, 5))
    codes = torch.arange(1000).reshape(1, 10, 100)
    vectors = fsq.vectors_of(codes)
    assert len(vectors.movedim(1, -1).reshape(-1, 4).unique(dim=0)) == fsq.size == 1000
    assert vectors.abs().max() <= 1
    z = torch.randn(1, 4, 400, 400, generator=torch.Generator().manual_seed(0))
    found = fsq(z)
    assert len(found.codes.unique()) == 1000
    torch.testing.assert_close(fsq.vectors_of(found.codes), found.z)
    assert not found.penalty.any()
    assert not list(fsq.parameters())


@pytest.mark.parametrize("level", [3, 4, 5, 8])
def test_an_fsq_rounds_to_the_nearest_of_its_levels(level):
    """All levels are reached, in order; 0 stays 0."""
    fsq = FSQ((level,))
    z = torch.linspace(-8, 8, 4001)[None, None, None]
    values = fsq(z).z.flatten()
    assert torch.equal(values.sort().values, values)
    expected = (torch.arange(level) - level // 2) / (level // 2)
    torch.testing.assert_close(values.unique(), expected)
    assert values[2000] == 0


def step(book, z, ids=None):
    found = book(z)
    noise = Noise(0, torch.arange(len(z)) if ids is None else ids)
    book.learn(book.statistics(found), book.candidates(found, noise))
    return found


def test_vectors_follow_the_average_of_their_latents():
    """m_t = Σ d^(t−s)·sums_s / Σ d^(t−s)·counts_s, with usage 0 before."""
    book = codebook(size=3, decay=0.8)
    book.usage.fill_(1.0)
    book.vectors.copy_(torch.eye(4)[:3] * 20)
    usage, sums = torch.ones(3), book.vectors.clone()
    for _ in range(6):
        z = Z + 20 * torch.eye(4)[torch.randint(3, (3, 5, 6))].movedim(-1, 1)
        found = step(book, z)
        rows, codes = z.movedim(1, -1).reshape(-1, 4), found.codes.flatten()
        chosen = torch.nn.functional.one_hot(codes, 3).float() * 3 / len(codes)
        usage = 0.8 * usage + 0.2 * chosen.sum(0)
        sums = 0.8 * sums + 0.2 * chosen.T @ rows
    torch.testing.assert_close(book.usage, usage)
    torch.testing.assert_close(book.vectors, sums / usage[:, None])


def test_dead_codes_come_alive_and_stay_so():
    """Latents of 32 places; a codebook far from all but one, that only reviving can spread."""
    generator = torch.Generator().manual_seed(0)
    places = torch.randn(32, 4, generator=generator) * 5
    book, lonely = codebook(size=32), codebook(size=32)
    for each in (book, lonely):
        each.vectors.add_(100)
        each.vectors[0] = 0
    used = []
    for t in range(150):
        z = places[torch.randint(32, (16, 8, 8), generator=generator)].movedim(-1, 1)
        found = step(book, z, torch.arange(16) + 16 * t)
        used.append(len(found.codes.unique()))
        alone = lonely(z)
        lonely.learn(lonely.statistics(alone), z.new_zeros(0, 4))
    assert used[0] == 1
    assert len(alone.codes.unique()) == 1
    assert used[-1] >= 26
    assert used[-1] >= max(used[50:]) - 3


def test_what_a_step_teaches_does_not_depend_on_how_it_is_shared_out():
    together, shared, ids = codebook(), codebook(), torch.tensor([7, 3, 11])
    whole = together(Z)
    together.learn(together.statistics(whole), together.candidates(whole, Noise(0, ids)))
    parts = [(shared(Z[k : k + 1]), Noise(0, ids[k : k + 1])) for k in range(3)]
    sums = torch.stack([shared.statistics(found) for found, _ in parts]).sum(0)
    shared.learn(sums, torch.cat([shared.candidates(*part) for part in parts]))
    torch.testing.assert_close(shared.vectors, together.vectors)
    torch.testing.assert_close(shared.usage, together.usage)
    assert not torch.equal(shared.vectors, codebook().vectors)
