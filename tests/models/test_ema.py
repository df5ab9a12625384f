"""The average against its closed form."""

import pytest
import torch

from unnoise.models.ema import EMA


def test_equals_its_closed_form():
    """w̄_n = Π d_i·w_0 + Σ_i (1 − d_i)·Π_{j>i} d_j·w_i, to 1e-12, through warm-up and beyond."""
    torch.manual_seed(0)
    model = torch.nn.Linear(5, 3).double()
    ema = EMA(model, decay=0.9)
    history = [model.weight.detach().clone()]
    for _ in range(200):
        with torch.no_grad():
            model.weight.add_(torch.randn_like(model.weight))
        ema.update(list(model.parameters()))
        history.append(model.weight.detach().clone())
    decays = [min(0.9, (1 + t) / (10 + t)) for t in range(200)]
    expected = history[0].clone()
    for d, weight in zip(decays, history[1:], strict=True):
        expected = d * expected + (1 - d) * weight
    assert decays[0] == 0.1
    assert decays[-1] == 0.9
    torch.testing.assert_close(ema.model.weight, expected, rtol=0, atol=1e-12)


def test_constant_weights_do_not_drift():
    model = torch.nn.Linear(50, 50)
    ema = EMA(model, decay=0.9999)
    for _ in range(2000):
        ema.update(list(model.parameters()))
    assert torch.equal(ema.model.weight, model.weight)


def test_continues_where_its_state_stood():
    def walk(ema, model, steps, start):
        for step in range(start, start + steps):
            with torch.no_grad():
                model.weight.fill_(float(step))
            ema.update(list(model.parameters()))

    model = torch.nn.Linear(2, 2)
    whole = EMA(model, decay=0.95)
    first = EMA(model, decay=0.95)
    walk(whole, model, 20, 0)
    walk(first, model, 7, 0)
    second = EMA(model, decay=0.95)
    second.load_state_dict(first.state_dict())
    walk(second, model, 13, 7)
    assert torch.equal(second.model.weight, whole.model.weight)


def test_the_copy_is_apart_and_not_trained():
    model = torch.nn.Linear(2, 2)
    ema = EMA(model, decay=0.5)
    with torch.no_grad():
        model.weight.add_(1)
    assert not torch.equal(ema.model.weight, model.weight)
    assert not any(p.requires_grad for p in ema.parameters())


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9999])
def test_decay_rises_to_its_limit(decay):
    ema = EMA(torch.nn.Linear(1, 1), decay)
    values = [ema.decay_at(t) for t in range(100_000)]
    assert values == sorted(values)
    assert values[-1] == decay


def test_buffers_are_copied_and_not_averaged():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    ema = EMA(model, 0.5)
    for _ in range(3):
        model(torch.randn(8, 2) + 5)
        ema.update(list(model.parameters()))
    assert torch.equal(ema.model[1].running_mean, model[1].running_mean)
    assert model[1].num_batches_tracked == ema.model[1].num_batches_tracked == 3


def test_buffers_are_copied_wherever_they_live_now():
    """A move to another type, a loaded state and a buffer that was replaced are all followed."""
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    ema = EMA(model, decay=0.5)
    for each in (model, ema):  # as a move to a GPU does, this replaces the tensors
        each.double()
    model[1].running_mean.fill_(3)
    ema.update(list(model.parameters()))
    assert ema.model[1].running_mean.tolist() == [3, 3]
    model.load_state_dict({k: torch.full_like(v, 5) for k, v in model.state_dict().items()})
    ema.load_state_dict(EMA(model, decay=0.5).state_dict())
    model[1].running_mean = torch.full((2,), 7.0, dtype=torch.float64)
    ema.update(list(model.parameters()))
    assert ema.model[1].running_mean.tolist() == [7, 7]
    assert ema.model[1].running_var.tolist() == [5, 5]
