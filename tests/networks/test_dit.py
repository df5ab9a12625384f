import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unnoise.config.compose import check_command_line
from unnoise.config.nodes import instantiate
from unnoise.networks.conditioning import ClassConditioner, Condition, ConditionShape
from unnoise.networks.dit import DiT, DiTBlock, sine_positions

ALL = ConditionShape(vector=6, tokens=7, spatial=2)
SMALL: dict[str, Any] = {"patch": 2, "width": 16, "depth": 2, "heads": 2}


def awake(shape=(3, 8, 4), outputs=3, condition=ALL, **changes: Any) -> DiT:
    """A small network with random weights everywhere, so that its output is not 0."""
    torch.manual_seed(0)
    network = DiT(shape, outputs, condition, **(SMALL | changes))
    for p in network.parameters():
        nn.init.normal_(p, std=0.2)
    return network


def inputs(batch: int = 3, length: int = 5) -> tuple[Tensor, Tensor, Condition]:
    torch.manual_seed(1)
    condition = Condition(
        vector=torch.randn(batch, 6),
        tokens=torch.randn(batch, length, 7),
        mask=torch.arange(length) <= torch.arange(batch)[:, None],
        spatial=torch.randn(batch, 2, 8, 4),
    )
    return torch.randn(batch, 3, 8, 4), torch.tensor([1.0, 20.0, 300.0]), condition


@pytest.mark.parametrize(
    ("name", "shape", "outputs", "classes", "published"),
    [
        ("dit_s", (4, 32, 32), 8, 1000, 32_963_360),
        ("dit_b", (4, 32, 32), 8, 1000, 130_512_416),
        ("dit_l", (4, 32, 32), 8, 1000, 458_102_816),
        ("dit_xl", (4, 32, 32), 8, 1000, 675_129_632),
        ("dit_4m", (3, 32, 32), 3, 10, 4_215_180),
    ],
)
def test_parameters_are_as_published(name, shape, outputs, classes, published):
    """With the table of classes, which has a row for no class, and the fixed positions counted."""
    config, found = check_command_line("train", [f"network={name}"])
    assert config is not None
    assert not found
    width = config["network"]["width"]
    with torch.device("meta"):
        table = ClassConditioner(classes, width)
        handed = {"shape": shape, "outputs": outputs, "condition": table.shape}
        network = instantiate(config["network"] | handed)
    weights = [*network.parameters(), *table.parameters(), network.positions]
    assert sum(each.numel() for each in weights) == published


@pytest.mark.parametrize("condition", [ConditionShape(), ALL])
def test_at_first_blocks_are_the_identity_and_the_output_is_exactly_0(condition):
    network = DiT((3, 8, 4), 6, condition, **SMALL)
    x, t, given = inputs()
    out = network(x, t, given if condition == ALL else None)
    assert torch.equal(out, torch.zeros(3, 6, 8, 4))
    h = torch.randn(2, 5, 16)
    assert torch.equal(DiTBlock(16, 2)(h, torch.randn(2, 1, 16), None), h)


def test_the_output_can_learn():
    network = DiT((3, 8, 4), 3, **SMALL)
    (network(inputs()[0], inputs()[1]) - 1).square().mean().backward()
    assert network.out.weight.grad is not None
    assert network.out.bias.grad.norm() > 0
    # the norm of a constant-free token times (1 + 0) is not 0, so that the weights learn, too
    assert network.out.weight.grad.norm() > 0


def test_each_pixel_goes_into_its_patch_and_back():
    """Without blocks or modulation the network maps patch by patch, so that patches do not mix."""
    network = awake(condition=ConditionShape(), depth=1)
    nn.init.zeros_(network.blocks[0].modulation.weight)
    nn.init.zeros_(network.blocks[0].modulation.bias)
    x, t, _ = inputs()
    changed = x.clone()
    changed[:, :, 2:4, 0:2] += 1.0  # one patch
    moved = (network(changed, t) - network(x, t)).abs().amax(dim=(0, 1))
    elsewhere = torch.ones(8, 4, dtype=torch.bool)
    elsewhere[2:4, 0:2] = False
    assert moved[elsewhere].max() < 1e-6
    assert moved[~elsewhere].min() > 1e-3


def test_positions_tell_rows_from_columns():
    """Attention knows no order, so a permuted picture of patches is only told by its positions."""
    positions = sine_positions((4, 3), 32)
    assert positions.shape == (12, 32)
    assert torch.cdist(positions, positions).add(torch.eye(12)).min() > 0.5
    assert positions[:, 0].unique().numel() == 4  # sin(row), the same in all columns
    assert positions[5, 0] == pytest.approx(math.sin(1))  # patch 5 is row 1, column 2
    assert positions[5, 16] == pytest.approx(math.sin(2))
    network = awake(condition=ConditionShape())
    x, t, _ = inputs()
    turned = torch.roll(x, 2, dims=2)
    with torch.no_grad():
        assert not torch.allclose(network(turned, t), torch.roll(network(x, t), 2, dims=2))
        network.positions.zero_()
        expected = torch.roll(network(x, t), 2, dims=2)
        torch.testing.assert_close(network(turned, t), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("field", ["vector", "tokens", "spatial"])
def test_a_condition_changes_its_own_sample_only(field):
    network, (x, t, given) = awake(), inputs()
    changed = getattr(given, field).clone()
    changed[1] += 1.0
    with torch.no_grad():
        moved = network(x, t, given) - network(x, t, given._replace(**{field: changed}))
    moved = moved.flatten(1).abs().amax(1)
    assert moved[1] > 1e-3
    assert moved[[0, 2]].max() < 1e-6


def test_tokens_beyond_the_mask_do_not_count():
    network, (x, t, given) = awake(), inputs()
    other = torch.where(given.mask[..., None], given.tokens, 9.0)
    with torch.no_grad():
        assert torch.equal(network(x, t, given._replace(tokens=other)), network(x, t, given))


def test_a_vector_of_the_networks_width_is_added_as_it_is():
    """The table of classes of the paper: zero adds nothing, and there is no projection."""
    with_vector = awake(condition=ConditionShape(vector=16))
    plain = DiT((3, 8, 4), 3, **SMALL)
    plain.load_state_dict(with_vector.state_dict())
    x, t, _ = inputs()
    with torch.no_grad():
        zero = with_vector(x, t, Condition(vector=torch.zeros(3, 16)))
        assert torch.equal(zero, plain(x, t))


def test_one_time_for_all_equals_the_time_repeated_and_samples_do_not_see_each_other():
    network, (x, t, given) = awake(), inputs()
    with torch.no_grad():
        assert torch.equal(
            network(x, torch.tensor(7.0), given), network(x, torch.full((3,), 7.0), given)
        )
        together = network(x, t, given)
        rows = [Condition(*(field[i : i + 1] for field in given)) for i in range(3)]
        alone = [network(x[i : i + 1], t[i : i + 1], rows[i]) for i in range(3)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-4)


def test_bfloat16_autocast_is_near_float32_and_the_graph_is_one():
    network, (x, t, given) = awake(), inputs()
    with torch.no_grad():
        expected = network(x, t, given)
        with torch.autocast("cpu", torch.bfloat16):
            actual = network(x, t, given)
    assert actual.dtype == torch.float32
    error = (actual - expected).square().mean() / expected.square().mean()
    assert 0 < error.sqrt() < 0.05
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, t, given), network(x, t, given))


@pytest.mark.parametrize(
    ("shape", "changes", "message"),
    [
        ((3, 8, 6), {"patch": 4}, "patch 4 does not divide the 8×6 pixels"),
        ((3, 8, 4), {"width": 18}, "width 18 must be a multiple of 4 and of heads"),
        ((3, 8, 4), {"heads": 3}, r"width 16 must be a multiple of 4 and of heads \(3\)"),
    ],
)
def test_impossible_networks_are_refused(shape, changes, message):
    with pytest.raises(ValueError, match=message):
        DiT(shape, 3, **(SMALL | changes))
