"""The U-Net with transformers: ours, and diffusers' UNet2DConditionModel with the same weights."""

from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers_unet import assert_same_gradients
from torch import Tensor, nn

from unnoise.config.compose import check_command_line
from unnoise.config.nodes import instantiate
from unnoise.networks.conditioning import Condition, ConditionShape
from unnoise.networks.pretrained import unet_from_diffusers, unet_to_diffusers
from unnoise.networks.transformer import SpatialTransformer, TransformerBlock
from unnoise.networks.unet import UNet

SIZES: dict[str, Any] = {"channels": 32, "multipliers": (1, 2, 2), "norm_groups": 8, "heads": 4}
TINY: dict[str, Any] = {
    **SIZES,
    "shape": (4, 16, 16),
    "outputs": 4,
    "condition": ConditionShape(tokens=24),
    "attention_resolutions": (16, 8),
    "transformer_depth": 2,
    "convention": "adm",
}
T = torch.tensor([0.0, 37.0, 999.0])


def awake(**changes: Any) -> UNet:
    """With random weights everywhere, of a size that lets each layer say something."""
    torch.manual_seed(0)
    network = UNet(**(TINY | changes))
    for p in network.parameters():
        nn.init.normal_(p, std=0.1)
    return network


def inputs(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Condition]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(3, 4, 16, 16, generator=generator, dtype=dtype)
    tokens = torch.randn(3, 7, 24, generator=generator, dtype=dtype)
    mask = torch.arange(7) <= torch.tensor([6, 2, 0])[:, None]
    return x, Condition(tokens=tokens, mask=mask)


def twin(linear: bool = False) -> Any:
    """Theirs, with weights of its own."""
    torch.manual_seed(0)
    network: Any = UNet2DConditionModel(  # type: ignore[no-untyped-call]
        sample_size=16,
        block_out_channels=(32, 64, 64),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=2,
        transformer_layers_per_block=2,
        norm_num_groups=8,
        cross_attention_dim=24,
        attention_head_dim=4,  # their name for the number of heads
        use_linear_projection=linear,
    )
    for p in network.parameters():
        nn.init.normal_(p, std=0.1)
    return network


def shown(theirs: Any, x: Tensor, condition: Condition) -> Tensor:
    """Their output."""
    hidden, which = condition.tokens, condition.mask
    found: Tensor = theirs(x, T, hidden, encoder_attention_mask=which).sample
    return found


@pytest.mark.parametrize("linear", [False, True])
def test_their_weights_give_their_output_here(linear: bool) -> None:
    theirs, ours = twin(linear), UNet(**TINY)
    ours.load_state_dict(unet_from_diffusers(theirs.state_dict(), ours))
    x, condition = inputs()
    with torch.no_grad():
        expected = shown(theirs, x, condition)
        assert expected.std() > 0.1
        torch.testing.assert_close(ours(x, T, condition), expected, rtol=0, atol=1e-5)


def test_our_weights_give_our_output_there() -> None:
    theirs, ours = twin(), awake()
    theirs.load_state_dict(unet_to_diffusers(ours))
    x, condition = inputs()
    with torch.no_grad():
        expected = ours(x, T, condition)
        assert expected.std() > 0.1
        torch.testing.assert_close(shown(theirs, x, condition), expected, rtol=0, atol=1e-5)


def test_gradients_equal_theirs() -> None:
    theirs, ours = twin().double(), UNet(**TINY).double()
    ours.load_state_dict(unet_from_diffusers(theirs.state_dict(), ours))
    x, condition = inputs(torch.float64)
    weight = torch.randn(x.shape, generator=torch.Generator().manual_seed(2), dtype=x.dtype)
    (ours(x, T, condition) * weight).sum().backward()
    (shown(theirs, x, condition) * weight).sum().backward()
    assert_same_gradients(ours, theirs)


def test_there_and_back_again_is_the_same() -> None:
    ours = awake()
    back = unet_from_diffusers(unet_to_diffusers(ours), ours)
    assert back.keys() == ours.state_dict().keys()
    for name, value in ours.state_dict().items():
        assert torch.equal(back[name], value), name


def test_weights_that_do_not_fit_are_refused() -> None:
    state = unet_to_diffusers(awake())
    shallow = UNet(**(TINY | {"transformer_depth": 1}))
    with pytest.raises(ValueError, match=r"no place for .*transformer_blocks\.1\.attn1\.to_k"):
        unet_from_diffusers(state, shallow)
    with pytest.raises(KeyError, match=r"transformer_blocks\.2\..*: this is another network"):
        unet_from_diffusers(state, UNet(**(TINY | {"transformer_depth": 3})))
    with pytest.raises(ValueError, match="attention to tokens in transformers only"):
        unet_to_diffusers(UNet(**(TINY | {"transformer_depth": 0})))


def test_stable_diffusion_has_the_published_size_and_runs_on_meta() -> None:
    typed = ["network=sd15", "data=scenes", "conditioning=text", "conditioning.width=768"]
    config, found = check_command_line("train", [*typed, "conditioning.pooled=false"])
    assert not found
    node = config["network"] | {"shape": [4, 64, 64], "outputs": 4}
    with torch.device("meta"):
        network = instantiate(node | {"condition": ConditionShape(tokens=768)})
        tokens, x = torch.zeros(2, 77, 768), torch.zeros(2, 4, 64, 64)
        out = network(x, torch.zeros(2), Condition(tokens=tokens))
    assert sum(p.numel() for p in network.parameters()) == 859_520_964
    assert out.shape == x.shape
    sizes = [m.blocks[0].cross.k.weight.shape for m in network.modules()
             if isinstance(m, SpatialTransformer)]  # fmt: skip
    widths = [*[320] * 2, *[640] * 2, *[1280] * 2, 1280, *[1280] * 3, *[640] * 3, *[320] * 3]
    assert [tuple(size) for size in sizes] == [(width, 768) for width in widths]


def test_initial_output_is_exactly_zero_and_transformers_are_the_identity() -> None:
    torch.manual_seed(0)
    x, condition = inputs()
    out = UNet(**TINY)(x, T, condition)
    assert torch.equal(out, torch.zeros_like(out))
    transformer = SpatialTransformer(16, 24, 4, 1, 4)
    h = torch.randn(3, 16, 8, 8)
    assert torch.equal(transformer(h, condition.tokens, condition.mask), h)
    transformer(h, condition.tokens, condition.mask).sum().backward()
    assert transformer.proj_out.weight.grad is not None
    assert transformer.proj_out.weight.grad.norm() > 0


def test_a_block_is_three_sums_of_its_formula() -> None:
    """In float64, with softmax, layer norm and gelu written out."""
    torch.manual_seed(0)
    block = TransformerBlock(8, 6, 2).double()
    for p in block.parameters():
        nn.init.normal_(p, std=0.5)
    x, tokens = torch.randn(2, 5, 8).double(), torch.randn(2, 3, 6).double()

    def norm(layer: nn.LayerNorm, h: Tensor) -> Tensor:
        centred = h - h.mean(2, keepdim=True)
        variance = centred.square().mean(2, keepdim=True)
        return centred / (variance + 1e-5).sqrt() * layer.weight + layer.bias

    def attend(layer: Any, h: Tensor, context: Tensor) -> Tensor:
        heads = []
        for rows in (slice(0, 4), slice(4, 8)):
            q, k, v = (
                z @ w.weight[rows].T
                for z, w in ((h, layer.q), (context, layer.k), (context, layer.v))
            )
            scores = (q @ k.transpose(1, 2) / 2).exp()
            heads.append(scores / scores.sum(2, keepdim=True) @ v)
        return torch.cat(heads, 2) @ layer.out.weight.T + layer.out.bias

    h = norm(block.norm1, x)
    expected = x + attend(block.attention, h, h)
    expected = expected + attend(block.cross, norm(block.norm2, expected), tokens)
    both = norm(block.norm3, expected) @ block.mlp1.weight.T + block.mlp1.bias
    a, b = both[..., :32], both[..., 32:]
    gelu = b * (1 + torch.erf(b / 2**0.5)) / 2
    expected = expected + (a * gelu) @ block.mlp2.weight.T + block.mlp2.bias
    torch.testing.assert_close(block(x, tokens, None), expected, rtol=1e-12, atol=1e-12)


def test_tokens_beyond_the_mask_do_not_count() -> None:
    network, (x, condition) = awake(), inputs()
    assert condition.tokens is not None
    assert condition.mask is not None
    other = torch.where(condition.mask[..., None], condition.tokens, 9.0)
    with torch.no_grad():
        before = network(x, T, condition)
        assert torch.equal(network(x, T, condition._replace(tokens=other)), before)
        moved = condition.tokens.clone()
        moved[1, 0] += 1
        change = (network(x, T, condition._replace(tokens=moved)) - before).flatten(1).abs().amax(1)
    assert change[1] > 1e-3
    assert change[[0, 2]].max() < 1e-6


def test_without_tokens_pixels_attend_to_each_other_only() -> None:
    network = awake(condition=ConditionShape())
    assert not any("cross" in name or "norm2" in name for name, _ in network.named_parameters()
                   if ".transformer.blocks." in name)  # fmt: skip
    x, _ = inputs()
    together = network(x, T)
    torch.testing.assert_close(together[1:2], network(x[1:2], T[1:2]), rtol=1e-5, atol=1e-5)


def test_compiles_into_one_graph() -> None:
    network, (x, condition) = awake(), inputs()
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, T, condition), network(x, T, condition))
