from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from unnoise.networks.conditioning import (
    ClassConditioner,
    Condition,
    Conditioner,
    ConditionShape,
    Edges,
    JointConditioner,
    PictureConditioner,
)


def test_joined_conditions_are_padded_with_masked_tokens() -> None:
    short, long = torch.randn(2, 1, 3), torch.randn(1, 2, 3)
    mask = torch.tensor([[False, True]])
    vector, tokens, joined_mask, spatial = Condition(tokens=short).joined(
        Condition(tokens=long, mask=mask)
    )
    assert vector is None
    assert spatial is None
    assert tokens is not None
    assert joined_mask is not None
    assert torch.equal(tokens[:2, :1], short)
    assert torch.equal(tokens[2:], long)
    assert joined_mask.tolist() == [[True, False], [True, False], [False, True]]


def test_unlike_conditions_are_not_joined() -> None:
    with pytest.raises(ValueError, match="the same fields"):
        Condition(vector=torch.zeros(1, 2)).joined(Condition(spatial=torch.zeros(1, 1, 2, 2)))


def test_a_batch_without_labels_is_refused() -> None:
    conditioner = ClassConditioner(classes=4, width=6)
    with pytest.raises(ValueError, match="reads 'label' of a batch, but this one has image"):
        conditioner({"image": torch.zeros(1)}, torch.ones(1, dtype=torch.bool))


def test_each_class_has_its_vector() -> None:
    conditioner: Conditioner = ClassConditioner(classes=4, width=6)
    assert conditioner.shape == ConditionShape(vector=6)
    label = torch.tensor([2, 0, 2])
    vector = conditioner({"label": label}, torch.ones(3, dtype=torch.bool)).vector
    assert vector.shape == (3, 6)
    assert torch.equal(vector[0], vector[2])
    assert not torch.allclose(vector[0], vector[1])


def test_dropped_samples_have_the_null_vector() -> None:
    conditioner = ClassConditioner(classes=4, width=6)
    label, keep = torch.tensor([0, 1, 3, 3]), torch.tensor([True, False, False, True])
    vector = conditioner({"label": label}, keep).vector
    assert torch.equal(vector[1], vector[2])
    kept = conditioner({"label": label}, torch.ones(4, dtype=torch.bool)).vector
    assert torch.equal(vector[keep], kept[keep])
    assert not torch.isclose(vector[1], conditioner.table.weight[:4]).all(1).any()
    assert label.tolist() == [0, 1, 3, 3]


def test_only_the_vectors_in_use_learn() -> None:
    conditioner = ClassConditioner(classes=4, width=6)
    keep = torch.tensor([True, False])
    conditioner({"label": torch.tensor([1, 2])}, keep).vector.sum().backward()
    assert conditioner.table.weight.grad is not None
    assert conditioner.table.weight.grad.any(1).tolist() == [False, True, False, False, True]


def sketch_and_class() -> JointConditioner:
    torch.manual_seed(0)
    return JointConditioner(
        {"class": ClassConditioner(4, 6), "sketch": PictureConditioner(Edges())}
    )


def test_parts_are_put_together() -> None:
    joint = sketch_and_class()
    assert joint.shape == ConditionShape(vector=6, spatial=1)
    assert joint.reads == ("label", "image")
    batch = {
        "label": torch.tensor([2, 0]),
        "image": torch.randint(256, (2, 3, 8, 8), dtype=torch.uint8),
    }
    keep = torch.tensor([True, False])
    condition = joint(batch, keep)
    alone = [part(batch, keep) for part in joint.parts.values()]
    assert torch.equal(condition.vector, alone[0].vector)
    assert torch.equal(condition.spatial, alone[1].spatial)
    assert condition.tokens is None
    assert torch.equal(joint.picture(batch), joint.parts["sketch"].picture(batch))
    assert joint.words(batch) is None
    assert joint.examples(torch.arange(2)) is None


def test_vectors_lie_side_by_side() -> None:
    joint = JointConditioner({"one": ClassConditioner(4, 6), "two": ClassConditioner(4, 3)})
    batch, keep = {"label": torch.tensor([1, 3])}, torch.ones(2, dtype=torch.bool)
    expected = torch.cat([part(batch, keep).vector for part in joint.parts.values()], dim=1)
    assert torch.equal(joint(batch, keep).vector, expected)
    examples = joint.examples(torch.arange(6))
    assert examples is not None
    assert examples["label"].tolist() == [0, 1, 2, 3, 0, 1]


class Speaker(Conditioner):
    shape = ConditionShape(tokens=4)

    def forward(self, batch: Mapping[str, Any], keep: Tensor) -> Condition:
        return Condition(tokens=torch.ones(len(keep), 2, 4))

    def words(self, batch: Mapping[str, Any]) -> list[str]:
        return ["hello"]


def test_tokens_come_from_one_part() -> None:
    joint = JointConditioner({"class": ClassConditioner(4, 6), "text": Speaker()})
    condition = joint({"label": torch.tensor([1])}, torch.ones(1, dtype=torch.bool))
    assert torch.equal(condition.tokens, torch.ones(1, 2, 4))
    assert joint.words({}) == ["hello"]
    with pytest.raises(ValueError, match="not a and b"):
        JointConditioner({"a": Speaker(), "b": Speaker()})
    with pytest.raises(ValueError, match="not no part at all"):
        JointConditioner({})
