import itertools
from typing import Any

import pytest
import torch
from diffusers_unet import assert_same_gradients, same_networks
from torch import Tensor, nn

from unnoise.networks.blocks import CrossAttention, SelfAttention
from unnoise.networks.conditioning import Condition, ConditionShape
from unnoise.networks.unet import Stage, UNet

SMALL: dict[str, Any] = {
    "shape": (3, 8, 8),
    "outputs": 3,
    "channels": 16,
    "multipliers": (1, 2),
    "blocks": 1,
    "attention_resolutions": (4,),
}

CIFAR_NARROW: dict[str, Any] = {
    "shape": (3, 32, 32),
    "outputs": 3,
    "channels": 32,
    "multipliers": (1, 2, 2, 2),
    "norm_groups": 8,
}
LAPTOP: dict[str, Any] = {
    "shape": (3, 16, 16),
    "outputs": 3,
    "channels": 32,
    "multipliers": (1, 2, 2),
    "attention_resolutions": (8,),
    "head_size": 32,
    "norm_groups": 8,
}
GREY: dict[str, Any] = {
    "shape": (1, 28, 28),
    "outputs": 2,
    "channels": 20,
    "multipliers": (1, 3, 2),
    "blocks": 1,
    "attention_resolutions": (28, 7),
    "head_size": 10,
    "norm_groups": 5,
}
ODD: dict[str, Any] = {
    "shape": (5, 12, 12),
    "outputs": 7,
    "channels": 24,
    "multipliers": (1, 2, 3),
    "blocks": 3,
    "attention_resolutions": (6,),
    "norm_groups": 6,
}
TWINS = [CIFAR_NARROW, LAPTOP, GREY, ODD, LAPTOP | {"convention": "adm"}]


def awake(**changes: Any) -> UNet:
    """A small network with random weights everywhere, so that its output is not 0."""
    torch.manual_seed(0)
    network = UNet(**(SMALL | changes))
    for p in network.parameters():
        nn.init.normal_(p, std=0.1)
    return network


def images(config: dict[str, Any], batch: int = 3, dtype: torch.dtype = torch.float32) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(batch, *config["shape"], dtype=dtype)


def test_ddpm_cifar_network_has_the_published_size() -> None:
    with torch.device("meta"):
        network = UNet((3, 32, 32), 3)
    assert all(p.is_meta for p in network.parameters())
    assert sum(p.numel() for p in network.parameters()) == 35_746_307


@pytest.mark.parametrize("config", TWINS)
def test_output_equals_diffusers(config: dict[str, Any]) -> None:
    torch.manual_seed(0)
    ours, theirs = same_networks(**config)
    x, t = images(config), torch.tensor([0.0, 37.0, 999.0])
    with torch.no_grad():
        expected = theirs(x, t).sample
        assert expected.std() > 0.1
        torch.testing.assert_close(ours(x, t), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("config", TWINS)
def test_gradients_equal_diffusers(config: dict[str, Any]) -> None:
    torch.manual_seed(0)
    ours, theirs = (network.double() for network in same_networks(**config))
    x, t = images(config, 2, torch.float64), torch.tensor([3.0, 500.0])
    out = ours(x, t)
    weight = torch.randn_like(out)
    (out * weight).sum().backward()
    (theirs(x, t).sample * weight).sum().backward()
    assert_same_gradients(ours, theirs)


def test_condition_vector_equals_diffusers_class_embedding() -> None:
    torch.manual_seed(0)
    ours, theirs = same_networks(**LAPTOP, classes=5)
    x, t, labels = images(LAPTOP), torch.tensor([1.0, 10.0, 100.0]), torch.tensor([0, 4, 2])
    with torch.no_grad():
        expected = theirs(x, t, class_labels=labels).sample
        actual = ours(x, t, Condition(vector=theirs.class_embedding(labels)))
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


def test_initial_output_is_exactly_zero_and_can_learn() -> None:
    network = UNet(**SMALL)
    out = network(images(SMALL), torch.tensor(5.0))
    assert torch.equal(out, torch.zeros_like(out))
    (out - 1).square().mean().backward()
    assert network.conv_out.weight.grad is not None
    assert network.conv_out.weight.grad.norm() > 0


def test_initialisation_has_ddpm_variance() -> None:
    torch.manual_seed(0)
    network = UNet(**(SMALL | {"channels": 64, "condition": ConditionShape(tokens=48)}))
    attends = (SelfAttention, CrossAttention)
    zero = {f"{name}.out" for name, m in network.named_modules() if isinstance(m, attends)}
    zero |= {name for name, _ in network.named_modules() if name.endswith("block.conv2")}
    zero |= {"conv_out"}
    assert len(zero) == 1 + 4 + 4 + 8  # output, attentions, residual blocks
    for name, module in network.named_modules():
        if not isinstance(module, nn.Conv2d | nn.Linear):
            continue
        assert module.bias is not None
        assert not module.bias.any(), name
        if name in zero:
            assert not module.weight.any(), name
            continue
        for part in module.weight.chunk(3 if name.endswith("qkv") else 1):
            receptive = part[0, 0].numel()
            variance = 2 / (receptive * (part.shape[0] + part.shape[1]))
            tolerance = 4 * (0.8 / part.numel()) ** 0.5  # 4 standard errors: a uniform's kurtosis
            assert part.var().item() == pytest.approx(variance, rel=tolerance), name
            assert part.abs().max().item() <= (3 * variance) ** 0.5 + 1e-7, name


def test_one_time_for_all_equals_the_time_repeated() -> None:
    network = awake()
    x = images(SMALL)
    with torch.no_grad():
        expected = network(x, torch.full((3,), 7.0))
        assert torch.equal(network(x, torch.tensor(7.0)), expected)


def test_any_height_and_width_that_can_be_halved() -> None:
    """A turned picture through turned weights is the picture turned."""
    tall = awake(shape=(3, 8, 4), attention_resolutions=())
    wide = awake(shape=(3, 4, 8), attention_resolutions=())
    for layer in (m for m in wide.modules() if isinstance(m, nn.Conv2d)):
        layer.weight.data.copy_(layer.weight.data.transpose(-1, -2).clone())
    x, t = torch.randn(2, 3, 8, 4), torch.tensor([3.0, 500.0])
    with torch.no_grad():
        expected = tall(x, t)
        assert expected.std() > 0.1
        turned = wide(x.transpose(-1, -2), t).transpose(-1, -2)
    torch.testing.assert_close(turned, expected, rtol=1e-5, atol=1e-5)


def test_attention_sits_at_the_longer_sides() -> None:
    network = UNet(**(CIFAR_NARROW | {"shape": (3, 16, 32)}))
    seen: list[tuple[int, ...]] = []
    for module in network.modules():
        if isinstance(module, SelfAttention):
            module.register_forward_hook(lambda _, args, out: seen.append(args[0].shape[2:]))
    network(torch.zeros(1, 3, 16, 32), torch.tensor(0.0))
    assert seen == [(8, 16), (8, 16), (2, 4), (8, 16), (8, 16), (8, 16)]


def test_samples_do_not_see_each_other() -> None:
    network = awake()
    x, t = images(SMALL), torch.tensor([1.0, 20.0, 300.0])
    with torch.no_grad():
        together = network(x, t)
        alone = torch.cat([network(x[i : i + 1], t[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("norm_groups", [1, 32])
def test_time_reaches_every_residual_block(norm_groups: int) -> None:
    network = awake(norm_groups=norm_groups)
    network(images(SMALL), torch.tensor([1.0, 20.0, 300.0])).square().sum().backward()
    stages = [m for m in network.modules() if isinstance(m, Stage)]
    assert len(stages) == 2 + 2 + 4
    for stage in stages:
        gradient = stage.block.time.weight.grad
        assert gradient is not None
        assert gradient.norm() > 1e-2


def test_attention_sits_at_its_resolutions_and_in_the_middle() -> None:
    network = UNet(**CIFAR_NARROW)
    seen: list[int] = []
    for module in network.modules():
        if isinstance(module, SelfAttention):
            module.register_forward_hook(lambda _, args, out: seen.append(args[0].shape[-1]))
    network(images(CIFAR_NARROW, 1), torch.tensor(0.0))
    assert seen == [16, 16, 4, 16, 16, 16]


def test_dropout_acts_in_training_only() -> None:
    network = awake(dropout=0.5)
    x, t = images(SMALL), torch.tensor(3.0)
    assert not torch.equal(network(x, t), network(x, t))
    network.eval()
    assert torch.equal(network(x, t), network(x, t))


def condition(batch: int = 3, length: int = 5) -> Condition:
    torch.manual_seed(2)
    return Condition(
        vector=torch.randn(batch, 6),
        tokens=torch.randn(batch, length, 7),
        mask=torch.arange(length) <= torch.arange(batch)[:, None],
        spatial=torch.randn(batch, 2, 8, 8),
    )


ALL_WAYS = ConditionShape(vector=6, tokens=7, spatial=2)


@pytest.mark.parametrize("field", ["vector", "tokens", "spatial"])
def test_condition_changes_its_own_sample_only(field: str) -> None:
    network, given = awake(condition=ALL_WAYS), condition()
    x, t = images(SMALL), torch.tensor(3.0)
    changed = getattr(given, field).clone()
    changed[1] += 1.0
    with torch.no_grad():
        moved = network(x, t, given) - network(x, t, given._replace(**{field: changed}))
    moved = moved.flatten(1).abs().amax(1)
    assert moved[1] > 1e-3
    assert moved[[0, 2]].max() < 1e-6


def test_tokens_beyond_the_mask_do_not_count() -> None:
    network, x, t = awake(condition=ConditionShape(tokens=7)), images(SMALL), torch.tensor(3.0)
    _, tokens, mask, _ = condition()
    assert tokens is not None
    assert mask is not None
    other = torch.where(mask[..., None], tokens, 9.0)
    with torch.no_grad():
        before = network(x, t, Condition(tokens=tokens, mask=mask))
        assert torch.equal(network(x, t, Condition(tokens=other, mask=mask)), before)
        alone = network(x[:1], t, Condition(tokens=tokens[:1, :1]))
    torch.testing.assert_close(alone, before[:1], rtol=1e-5, atol=1e-5)


def test_joined_conditions_are_two_calls_in_one() -> None:
    network, x, t = awake(condition=ALL_WAYS), images(SMALL), torch.tensor([1.0, 20.0, 300.0])
    one, other = condition(length=5), condition(length=2)
    with torch.no_grad():
        both = network(torch.cat([x, x]), torch.cat([t, t]), one.joined(other))
        expected = torch.cat([network(x, t, one), network(x, t, other)])
    torch.testing.assert_close(both, expected, rtol=1e-5, atol=1e-5)


def test_tokens_are_attended_to_wherever_pixels_are() -> None:
    network = UNet(**CIFAR_NARROW, condition=ConditionShape(tokens=7))
    seen: list[int] = []
    for module in network.modules():
        if isinstance(module, CrossAttention):
            module.register_forward_hook(lambda _, args, out: seen.append(args[0].shape[-1]))
    network(images(CIFAR_NARROW, 1), torch.tensor(0.0), Condition(tokens=torch.randn(1, 4, 7)))
    assert seen == [16, 16, 4, 16, 16, 16]


def test_further_outputs_leave_the_first_as_they_were() -> None:
    torch.manual_seed(0)
    plain, double = UNet(**SMALL), UNet(**(SMALL | {"outputs": 6}))
    state = plain.state_dict()
    for name in ("conv_out.weight", "conv_out.bias"):
        nn.init.normal_(state[name])
        state[name] = torch.cat([state[name], torch.zeros_like(state[name])])
    double.load_state_dict(state)
    x, t = images(SMALL), torch.arange(3.0)
    with torch.no_grad():
        prediction, fraction = double(x, t).chunk(2, dim=1)
        torch.testing.assert_close(prediction, plain(x, t), rtol=0, atol=1e-6)
    assert not fraction.any()


def test_bfloat16_autocast_is_near_float32() -> None:
    torch.manual_seed(0)
    network, _ = same_networks(**LAPTOP)
    x, t = images(LAPTOP), torch.tensor([0.0, 37.0, 999.0])
    with torch.no_grad():
        expected = network(x, t)
        with torch.autocast("cpu", torch.bfloat16):
            actual = network(x, t)
    assert actual.dtype == torch.float32
    error = (actual - expected).square().mean() / expected.square().mean()
    assert 0 < error.sqrt() < 0.02


def test_compiles_into_one_graph() -> None:
    network = awake(condition=ALL_WAYS)
    x, t, given = images(SMALL), torch.arange(3.0), condition()
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, t, given), network(x, t, given))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"shape": (3, 32, 30), "multipliers": (1, 2, 2)},
            "30 pixels cannot be halved 2 times: .* a multiple of 4, e.g. 28 or 32",
        ),
        ({"shape": (3, 3, 4)}, "3 pixels .* multiple of 2, e.g. 2 or 4"),
        ({"shape": (3, 2, 2), "multipliers": (1, 1, 1)}, "multiple of 4, e.g. 4$"),
        ({"attention_resolutions": (16, 4)}, r"attention_resolutions \[16\] .* \[8, 4\]"),
        ({"head_size": 12}, r"head_size 12 does not divide the channels \[32\]"),
        ({"heads": 5}, r"heads 5 does not divide the channels \[32\]"),
        ({"heads": 2, "head_size": 8}, "head_size 8 and heads 2: give one"),
        ({"channels": 15}, "channels 15 must be even"),
        ({"channels": 2}, "at least 4"),
        ({"multipliers": ()}, "multipliers"),
    ],
)
def test_impossible_networks_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UNet(**(SMALL | changes))


def test_wrong_inputs_are_refused() -> None:
    x, t = images(SMALL), torch.arange(3.0)
    plain = UNet(**SMALL)
    with pytest.raises(ValueError, match=r"\(3, 3, 8, 6\).*\(B, 3, 8, 8\)"):
        plain(x[..., :6], t)
    with pytest.raises(ValueError, match=r"t has shape \(2,\) for a batch of 3"):
        plain(x, t[:2])


@pytest.mark.parametrize(
    ("ways", "changes", "message"),
    [
        (ConditionShape(), {}, "the condition has vector, but the network was built without"),
        (ConditionShape(vector=6), {}, "has tokens, but the network was built without"),
        (ALL_WAYS, {"vector": None}, "needs a condition with vector of width 6"),
        (ALL_WAYS, {"tokens": None, "mask": None}, "needs a condition with tokens of width 7"),
        (ALL_WAYS, {"spatial": None}, "needs a condition with spatial of width 2"),
        (ALL_WAYS, {"vector": torch.zeros(3, 5)}, r"vector has shape \(3, 5\), not \(3, 6\)"),
        (ALL_WAYS, {"tokens": torch.zeros(3, 5, 6)}, r"\(3, 5, 6\), not \(3, 5, 7\)"),
        (ALL_WAYS, {"spatial": torch.zeros(3, 1, 8, 8)}, r"not \(3, 2, 8, 8\)"),
        (ALL_WAYS, {"mask": torch.ones(3, 4).bool()}, r"mask is torch.bool \(3, 4\), not .*5\)"),
        (ALL_WAYS, {"mask": torch.ones(3, 5)}, "mask is torch.float32"),
    ],
)
def test_wrong_conditions_are_refused(
    ways: ConditionShape, changes: dict[str, Any], message: str
) -> None:
    network = UNet(**SMALL, condition=ways)
    with pytest.raises(ValueError, match=message):
        network(images(SMALL), torch.arange(3.0), condition()._replace(**changes))


def test_head_size_is_not_checked_where_nothing_attends() -> None:
    network = UNet(**(SMALL | {"multipliers": (1, 2), "head_size": 32}))
    widths = [m.qkv.in_features for m in network.modules() if isinstance(m, SelfAttention)]
    assert widths == list(itertools.repeat(32, 4))
