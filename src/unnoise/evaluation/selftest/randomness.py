"""Randomness: the same numbers on every machine, whatever the batch."""

import math

import torch

from unnoise.diffusion.noise import Noise, philox
from unnoise.evaluation.selftest.check import Result, group

COUNTERS = torch.tensor([
    [0x00000000, 0x00000000, 0x00000000, 0x00000000],
    [0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF],
    [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
])  # fmt: skip
KEYS = [(0x00000000, 0x00000000), (0xFFFFFFFF, 0xFFFFFFFF), (0xA4093822, 0x299F31D0)]
ANSWERS = torch.tensor([
    [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8],
    [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD],
    [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
])  # fmt: skip
# normal("eps", (4,)) of seed 0, ids 0 and 2^40, and uniform("time") of ids 0 … 3
NORMALS = torch.tensor([
    [-3.195807695388794, -0.3371168076992035, 0.9774810671806335, -1.085138201713562],
    [0.024596670642495155, 1.1806423664093018, 2.1568663120269775, 1.1029527187347412],
])  # fmt: skip
UNIFORMS = [0.6947345733642578, 0.05125689506530762, 0.3164442777633667, 0.3002605438232422]


def known_answers(device: torch.device) -> Result:
    """How many of the twelve published words come out wrong."""
    found = torch.stack([philox(c, key) for c, key in zip(COUNTERS.to(device), KEYS, strict=True)])
    return Result(int((found.cpu() != ANSWERS).sum()), 0, 0)


def against_integers(device: torch.device) -> Result:
    """How many of 4000 words differ from those that Python's own integers give."""
    words = torch.randint(2**32, (4, 1000), generator=torch.Generator().manual_seed(0))
    found = philox(words.to(device), KEYS[2]).cpu()
    expected = torch.tensor([_philox(column, KEYS[2]) for column in words.T.tolist()]).T
    return Result(int((found != expected).sum()), 0, 0)


def _philox(counter: list[int], key: tuple[int, int]) -> list[int]:
    """Ten rounds, written with integers of any size (Salmon et al. 2011, §3)."""
    a, b, c, d = counter
    k_0, k_1 = key
    for _ in range(10):
        p, q = a * 0xD2511F53, c * 0xCD9E8D57
        a, b, c, d = (q >> 32) ^ b ^ k_0, q % 2**32, (p >> 32) ^ d ^ k_1, p % 2**32
        k_0, k_1 = (k_0 + 0x9E3779B9) % 2**32, (k_1 + 0xBB67AE85) % 2**32
    return [a, b, c, d]


def golden_normals(device: torch.device) -> Result:
    """Max difference of eight normals from what they were in release 0.1."""
    found = Noise(0, torch.tensor([0, 2**40], device=device)).normal("eps", (4,))
    return Result(float((found.cpu() - NORMALS).abs().max()), 0, 1e-5)


def golden_uniforms(device: torch.device) -> Result:
    """How many of four uniforms are not what they were in release 0.1."""
    found = Noise(0, torch.arange(4, device=device)).uniform("time").cpu()
    return Result(int((found != torch.tensor(UNIFORMS)).sum()), 0, 0)


def one_by_one(device: torch.device) -> Result:
    """Max difference of 64 samples' normals, drawn together here, and one by one on the CPU."""
    ids = torch.arange(64) * 2**28
    together = Noise(7, ids.to(device)).normal("eps", (3, 16, 16), draw=5).cpu()
    alone = torch.cat([Noise(7, each).normal("eps", (3, 16, 16), draw=5) for each in ids[:, None]])
    return Result(float((together - alone).abs().max()), 0, 1e-5)


def fourth_moment(device: torch.device) -> Result:
    """E[z⁴] of n = 400,000 normals, which is 3; four standard errors √(96/n) off at most."""
    n = 400_000
    z = Noise(7, torch.arange(400, device=device)).normal("eps", (n // 400,)).cpu().double()
    return Result(float((z**4).mean()), 3, 4 * math.sqrt(96 / n))


VECTORS = "Random123's known answers of philox4x32-10 (Salmon et al. 2011)"
RECORDED = "recorded on a CPU, torch 2.15"
CHECKS = group(
    "randomness",
    ("Philox: wrong words of 12 published ones", VECTORS, known_answers),
    ("Philox: wrong words of 4000", "Python's integers", against_integers),
    ("normals as in release 0.1", RECORDED, golden_normals),
    ("uniforms as in release 0.1", RECORDED, golden_uniforms),
    ("normals here are those of the CPU", "a sample is its id's alone", one_by_one),
    ("normals' fourth moment", "3, of N(0, 1)", fourth_moment),
)
