import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unnoise.networks.blocks import (
    CrossAttention,
    Downsample,
    ResidualBlock,
    SelfAttention,
    Upsample,
    attention,
    group_norm,
    sinusoidal_embedding,
)


def test_sinusoidal_embedding_is_its_formula() -> None:
    t, width = torch.tensor([0.0, 1.0, 2.5, 999.0]), 12
    actual = sinusoidal_embedding(t, width)
    assert actual.shape == (4, width)
    for row, time in zip(actual.tolist(), t.tolist(), strict=True):
        for i in range(width // 2):
            angle = time * 10000.0 ** (-i / (width // 2 - 1))
            assert row[i] == pytest.approx(math.sin(angle), abs=1e-4)
            assert row[i + width // 2] == pytest.approx(math.cos(angle), abs=1e-4)


def test_sinusoidal_embedding_stays_float32() -> None:
    t = torch.tensor([997, 998, 999])  # bfloat16 would round all three to 1000
    expected = sinusoidal_embedding(t.float(), 8)
    with torch.autocast("cpu", torch.bfloat16):
        actual = sinusoidal_embedding(t, 8)
    assert actual.dtype == torch.float32
    assert torch.equal(actual, expected)


@pytest.mark.parametrize(
    ("channels", "most", "groups"),
    [
        (128, 32, 32),
        (512, 32, 32),
        (384, 32, 32),  # the network's widest concatenations, too
        (32, 32, 8),  # 4 channels each
        (24, 32, 6),
        (34, 32, 2),  # 8 would leave 4 channels each, but does not divide
        (64, 8, 8),
        (3, 32, 1),
        (37, 32, 1),
    ],
)
def test_group_norm_takes_the_most_groups_that_fit(channels: int, most: int, groups: int) -> None:
    norm = group_norm(channels, most)
    assert norm.num_groups == groups
    assert norm.eps == 1e-6
    x = 5 + 3 * torch.randn(2, channels, 6, 6)
    grouped = norm(x).unflatten(1, (groups, -1)).flatten(2)
    assert grouped.mean(2).abs().max() < 1e-5
    assert (grouped.var(2, unbiased=False) - 1).abs().max() < 1e-5


def softmax_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    weights = torch.einsum("bhnd,bhmd->bhnm", q, k).div(q.shape[-1] ** 0.5).exp()
    return torch.einsum("bhnm,bhmd->bhnd", weights / weights.sum(-1, keepdim=True), v)


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
def test_attention_is_its_formula(dtype: torch.dtype, atol: float) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, 10, 8).to(dtype) for _ in range(3))
    expected = softmax_attention(q.double(), k.double(), v.double())
    actual = attention(q, k, v)
    assert actual.dtype == dtype
    torch.testing.assert_close(actual.double(), expected, rtol=0, atol=atol)


def test_attention_looks_at_the_nearest_key() -> None:
    keys = 30 * torch.eye(6).reshape(1, 1, 6, 6)
    v = torch.randn(1, 1, 6, 2)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    torch.testing.assert_close(attention(keys[:, :, order], keys, v), v[:, :, order])


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
def test_masked_keys_have_no_weight(dtype: torch.dtype, atol: float) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, 10, 8).to(dtype) for _ in range(3))
    mask = torch.arange(10) < torch.tensor([[4], [10]])
    expected = [
        softmax_attention(
            q[i : i + 1].double(), k[i : i + 1, :, :n].double(), v[i : i + 1, :, :n].double()
        )
        for i, n in ((0, 4), (1, 10))
    ]
    actual = attention(q, k, v, mask)
    torch.testing.assert_close(actual.double(), torch.cat(expected), rtol=0, atol=atol)


def awake(module: nn.Module) -> nn.Module:
    """Random weights everywhere: nothing starts at zero."""
    for p in module.parameters():
        nn.init.normal_(p, std=0.3)
    return module


def test_self_attention_starts_as_the_identity() -> None:
    x = torch.randn(2, 8, 3, 3)
    assert torch.equal(SelfAttention(8, head_size=4, norm_groups=2)(x), x)


def test_self_attention_knows_no_places() -> None:
    """Attention without a position code: permuting the pixels permutes the output."""
    torch.manual_seed(0)
    block, x, order = awake(SelfAttention(8, 4, 2)), torch.randn(2, 8, 4, 3), torch.randperm(12)
    permuted = x.flatten(2)[:, :, order].reshape(x.shape)
    expected = block(x).flatten(2)[:, :, order].reshape(x.shape)
    assert (expected - permuted).abs().max() > 0.1
    torch.testing.assert_close(block(permuted), expected, rtol=1e-5, atol=1e-5)


def test_self_attention_heads_are_separate_channels() -> None:
    """A change in one head's values reaches this head's channels only."""
    torch.manual_seed(0)
    block, x = SelfAttention(8, head_size=4, norm_groups=1), torch.randn(1, 8, 3, 3)
    with torch.no_grad():
        nn.init.eye_(block.out.weight)
        before = block(x)
        block.qkv.bias[16:20] += 1.0  # the values of head 0
        after = block(x)
    expected = torch.tensor([1.0] * 4 + [0.0] * 4).reshape(1, 8, 1, 1).expand(1, 8, 3, 3)
    torch.testing.assert_close(after - before, expected, rtol=0, atol=1e-5)


def test_cross_attention_starts_as_the_identity() -> None:
    x, tokens = torch.randn(2, 8, 3, 3), torch.randn(2, 5, 6)
    assert torch.equal(CrossAttention(8, 6, head_size=4, norm_groups=2)(x, tokens), x)


def test_cross_attention_is_its_formula() -> None:
    """Pixel by pixel, sample by sample, head by head, over the tokens that count."""
    torch.manual_seed(0)
    block = awake(CrossAttention(8, 6, head_size=4, norm_groups=2)).double()
    x, tokens = torch.randn(2, 8, 4, 3).double(), torch.randn(2, 5, 6).double()
    lengths = [3, 5]
    mask = torch.arange(5) < torch.tensor(lengths)[:, None]
    p = dict(block.named_parameters())
    h = F.group_norm(x, 2, p["norm.weight"], p["norm.bias"], 1e-6)
    expected = x.clone()
    for b, length in enumerate(lengths):
        k = tokens[b, :length] @ p["k.weight"].T + p["k.bias"]
        v = tokens[b, :length] @ p["v.weight"].T + p["v.bias"]
        for i in range(4):
            for j in range(3):
                q = p["q.weight"] @ h[b, :, i, j] + p["q.bias"]
                read = [
                    (k[:, head] @ q[head] / 2.0).softmax(0) @ v[:, head]
                    for head in (slice(0, 4), slice(4, 8))
                ]
                expected[b, :, i, j] += p["out.weight"] @ torch.cat(read) + p["out.bias"]
    assert (expected - x).abs().max() > 0.1
    torch.testing.assert_close(block(x, tokens, mask), expected)


def test_masked_tokens_have_no_influence() -> None:
    torch.manual_seed(0)
    block, x, tokens = (
        awake(CrossAttention(8, 6, 4, 2)),
        torch.randn(2, 8, 4, 3),
        torch.randn(2, 5, 6),
    )
    mask = torch.tensor([[True, False, True, True, False], [False, True, True, True, True]])
    before = block(x, tokens, mask)
    other = torch.where(mask[..., None], tokens, 100.0)
    assert torch.equal(block(x, other, mask), before)
    assert not torch.equal(block(x, other), block(x, tokens))


@pytest.mark.parametrize("out_channels", [8, 12])
def test_residual_block_starts_as_its_shortcut(out_channels: int) -> None:
    block = ResidualBlock(8, out_channels, 16, dropout=0.0, norm_groups=2)
    x, embedding = torch.randn(2, 8, 4, 4), torch.randn(2, 16)
    expected = x if out_channels == 8 else block.shortcut(x)
    torch.testing.assert_close(block(x, embedding), expected)


def test_residual_block_is_its_formula() -> None:
    torch.manual_seed(0)
    block = awake(ResidualBlock(8, 12, 16, dropout=0.0, norm_groups=2))
    x, embedding = torch.randn(2, 8, 4, 4), torch.randn(2, 16)
    p = dict(block.named_parameters())
    h = F.silu(F.group_norm(x, 2, p["norm1.weight"], p["norm1.bias"], 1e-6))
    h = F.conv2d(h, p["conv1.weight"], p["conv1.bias"], padding=1)
    h = h + (embedding @ p["time.weight"].T + p["time.bias"]).reshape(2, 12, 1, 1)
    h = F.silu(F.group_norm(h, 2, p["norm2.weight"], p["norm2.bias"], 1e-6))
    h = F.conv2d(h, p["conv2.weight"], p["conv2.bias"], padding=1)
    expected = F.conv2d(x, p["shortcut.weight"], p["shortcut.bias"]) + h
    torch.testing.assert_close(block(x, embedding), expected)


@pytest.mark.parametrize(("row", "column"), [(0, 0), (1, 2), (2, 2)])
def test_downsample_pads_right_and_bottom(row: int, column: int) -> None:
    """A kernel of one tap reads the input at 2i + row, 2j + column; beyond it lie zeros."""
    layer, x = Downsample(1), torch.randn(1, 1, 8, 8)
    with torch.no_grad():
        layer.conv.weight.zero_()[0, 0, row, column] = 1.0
    expected = F.pad(x, (0, 2, 0, 2))[:, :, row : row + 8 : 2, column : column + 8 : 2]
    assert torch.equal(layer(x), expected)


def test_upsample_repeats_each_pixel() -> None:
    layer, x = Upsample(1), torch.randn(1, 1, 3, 5)
    with torch.no_grad():
        layer.conv.weight.zero_()[0, 0, 1, 1] = 1.0
    assert torch.equal(layer(x), x.repeat_interleave(2, 2).repeat_interleave(2, 3))
