import torch

from unnoise.networks.conditioning import ClassConditioner, Conditioner


def test_each_class_has_its_vector() -> None:
    conditioner: Conditioner = ClassConditioner(classes=4, width=6)
    assert conditioner.width == 6
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
