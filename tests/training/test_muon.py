"""Muon: matrices step the same way in all directions, vectors as with Adam."""

import copy

import pytest
import torch
from torch import nn

from unnoise.training.muon import Muon, orthogonal

SHAPES = [(6, 6), (4, 30), (30, 4), (16, 3, 3, 3), (1, 7)]
LR = 0.01


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def of_known_values(rows, columns, values):
    """U diag(values) Vᵀ, with U and V."""
    u, v = (torch.linalg.qr(drawn(n, len(values), seed=n + 7))[0] for n in (rows, columns))
    return u * values @ v.mT, u, v


@pytest.mark.parametrize(("rows", "columns"), [(5, 5), (5, 40), (40, 5)])
def test_singular_vectors_stay_and_values_come_near_1(rows, columns):
    values = torch.tensor([1.0, 0.5, 0.1, 0.03, 0.01], dtype=torch.float64)
    matrix, u, v = of_known_values(rows, columns, values)
    found = orthogonal(matrix)
    in_their_axes = u.mT @ found @ v
    assert torch.allclose(in_their_axes, in_their_axes.diagonal().diag(), atol=1e-9)
    assert ((found - u @ in_their_axes @ v.mT).abs() < 1e-9).all()  # and nothing beside them
    expected = values / matrix.norm()
    for _ in range(5):  # singular value by singular value
        expected = 3.4445 * expected - 4.7750 * expected**3 + 2.0315 * expected**5
    assert torch.allclose(in_their_axes.diagonal(), expected, atol=1e-6)
    assert ((expected > 0.6) & (expected < 1.21)).all()


@pytest.mark.parametrize("condition", [1.0, 1e3, 1e6])
def test_float32_is_as_good(condition):
    values = torch.logspace(0, -torch.tensor(condition).log10().item(), 32, dtype=torch.float64)
    matrix, *_ = of_known_values(32, 96, values)
    exact = orthogonal(matrix)
    assert (orthogonal(matrix.float()) - exact).abs().max() < 2e-3 * exact.abs().max()


def test_a_matrix_of_zeros_stays():
    assert torch.equal(orthogonal(torch.zeros(3, 5)), torch.zeros(3, 5))


def stepped(weight, gradients, **options):
    """The weight after a step for each gradient."""
    parameter = nn.Parameter(weight.clone())
    optimizer = Muon([parameter], lr=LR, **options)
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimizer.step()
    return parameter.detach()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_first_step_by_hand(shape):
    weight, gradient = drawn(*shape, seed=1), drawn(*shape, seed=2)
    k = max(gradient.flatten(1).shape)
    step = weight - stepped(weight, [gradient])
    expected = LR * k**0.5 * orthogonal(gradient.flatten(1)).view(shape)
    assert torch.allclose(step, expected, rtol=1e-5, atol=1e-9)
    assert 0.6 * LR < step.square().mean().sqrt() < 1.21 * LR


def test_momentum_looks_ahead():
    weight, *gradients = (drawn(4, 9, seed=seed) for seed in range(4))
    momentum, averaged, expected = 0.8, torch.zeros_like(weight), weight.clone()
    for gradient in gradients:
        averaged = momentum * averaged + (1 - momentum) * gradient
        ahead = momentum * averaged + (1 - momentum) * gradient
        expected -= LR * 9**0.5 * orthogonal(ahead)
    assert torch.allclose(stepped(weight, gradients, momentum=momentum), expected, atol=1e-12)


def test_the_size_of_a_gradient_does_not_matter_and_axes_may_turn():
    weight, gradient = drawn(5, 8, seed=1), drawn(5, 8, seed=2)
    plain = weight - stepped(weight, [gradient])
    scaled = weight - stepped(weight, [1e-3 * gradient])
    assert torch.allclose(plain, scaled, atol=1e-3 * LR)
    turn = torch.linalg.qr(drawn(5, 5, seed=3))[0]
    assert torch.allclose(weight - stepped(weight, [turn @ gradient]), turn @ plain, atol=1e-10)


def test_vectors_are_adams():
    mine, its = (nn.Parameter(drawn(7).float()) for _ in range(2))
    muon = Muon([mine, nn.Parameter(torch.zeros(2, 2))], lr=LR, betas=(0.8, 0.95))
    adam = torch.optim.Adam([its], lr=LR, betas=(0.8, 0.95), fused=True)
    for seed in range(5):
        mine.grad, its.grad = (drawn(7, seed=seed).float() for _ in range(2))
        muon.step()
        adam.step()
    assert torch.equal(mine, its)


def test_without_a_gradient_nothing_moves():
    parameters = [nn.Parameter(torch.ones(3, 3)), nn.Parameter(torch.ones(3))]
    optimizer = Muon(parameters)
    optimizer.step()
    assert all((parameter == 1).all() for parameter in parameters)
    assert not optimizer.state


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_loaded_state_goes_on_bit_for_bit(layout):
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 2, 3)).to(memory_format=layout)
    x = drawn(4, 3, 9, 9).float().to(memory_format=layout)

    def steps(net, optimizer, number):
        for _ in range(number):
            net.zero_grad()
            net(x).square().mean().backward()
            optimizer.step()

    optimizer = Muon(network.parameters(), lr=0.02)
    steps(network, optimizer, 3)
    other = copy.deepcopy(network)
    again = Muon(other.parameters(), lr=1.0)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for each in (network, optimizer), (other, again):
        steps(*each, 3)
    assert all(
        torch.equal(a, b) for a, b in zip(network.parameters(), other.parameters(), strict=True)
    )


def test_the_closure_is_called_once_before_the_step():
    parameter = nn.Parameter(torch.ones(2, 2))
    optimizer, calls = Muon([parameter]), []

    def closure():
        calls.append(parameter.detach().clone())
        loss = parameter.sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 4
    assert len(calls) == 1
    assert torch.equal(calls[0], torch.ones(2, 2))
    assert (parameter < 1).all()


def test_a_badly_conditioned_matrix_is_learned_in_fewer_steps_than_by_adam():
    """W of W·A = B, with directions of A a hundred times as steep as others."""
    values = torch.logspace(0, -2, 12, dtype=torch.float64)
    a, *_ = of_known_values(12, 12, values)
    target = drawn(12, 12, seed=5)

    def left(kind, lr, steps=200):
        weight = nn.Parameter(torch.zeros(12, 12, dtype=torch.float64))
        optimizer = kind([weight], lr=lr)
        decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(steps):
            optimizer.zero_grad()
            ((weight - target) @ a).square().sum().backward()
            optimizer.step()
            decay.step()
        return (weight - target).norm().item() / target.norm().item()

    rates = (0.01, 0.03, 0.1, 0.3)
    assert min(left(Muon, lr) for lr in rates) < 0.5 * min(
        left(torch.optim.Adam, lr) for lr in rates
    )
