"""Muon (Jordan et al. 2024): a matrix goes the same way in all its directions."""

from collections.abc import Callable, Iterable
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from unnoise.config.numbers import Positive

QUINTIC = 3.4445, -4.7750, 2.0315
"""a, b, c of x ↦ ax + bx³ + cx⁵: five times, and 0.01 … 1 is within 0.68 … 1.14 (Jordan et al.)."""


class Muon(torch.optim.Adam):
    """Momentum made orthogonal for matrices, Adam for vectors.

    With the gradient G of a weight W of m rows and n columns (a convolution has a row for each
    output), μ = ``momentum``, UΣVᵀ the singular value decomposition, and k = max(m, n)::

        M ← μ M + (1 − μ) G,    UΣVᵀ = μ M + (1 − μ) G,    W ← W − lr · √k · UVᵀ

    UVᵀ of full rank has a root mean square of 1/√k, so that a matrix of any size moves by ``lr`` in
    it (Liu et al. 2025, "Muon is scalable for LLM training", §2.2, but for their factor of 0.2).
    UVᵀ is not exact, see ``orthogonal``.

    Args:
        params: parameters; those of at most one dimension are Adam's.
        lr: root mean square of a matrix's step, and the learning rate of Adam.
        momentum: of matrices.
        betas: of Adam.
        eps: of Adam.
        fused: Adam in one kernel.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: Positive = 1e-3,
        momentum: Annotated[float, Field(ge=0, lt=1)] = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: Positive = 1e-8,
        fused: bool = True,
    ) -> None:
        parts: tuple[list[nn.Parameter], list[nn.Parameter]] = ([], [])
        for parameter in params:
            parts[parameter.ndim > 1].append(parameter)
        groups = [{"params": part} for part in parts]
        super().__init__(groups, lr=lr, betas=betas, eps=eps, fused=fused)
        self.param_groups[1]["momentum"] = momentum

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of both, after the closure, whose result is returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        vectors, matrices = self.param_groups
        self.param_groups = [vectors]
        try:
            super().step()
        finally:
            self.param_groups = [vectors, matrices]
        self._step_matrices(matrices)
        return loss

    @torch.no_grad()
    def _step_matrices(self, group: dict[str, Any]) -> None:
        for weight in group["params"]:
            if weight.grad is None:
                continue
            state = self.state[weight]
            if not state:
                state |= {"step": torch.zeros(()), "momentum": torch.zeros_like(weight)}
            state["step"] += 1
            state["momentum"].lerp_(weight.grad, 1 - group["momentum"])
            ahead = weight.grad.lerp(state["momentum"], group["momentum"]).flatten(1)
            size: float = group["lr"] * max(ahead.shape) ** 0.5
            weight.sub_(orthogonal(ahead).view_as(weight), alpha=size)


def orthogonal(matrix: Tensor) -> Tensor:
    """About UVᵀ of a matrix UΣVᵀ (m, n): five times x ↦ ax + bx³ + cx⁵ of its singular values.

    Before that its Frobenius norm is made 1. All five together are a polynomial of XXᵀ times X,
    and it is the polynomial, of the size of the smaller side, that is computed.
    """
    x: Tensor = matrix / (matrix.norm() + 1e-7)
    if len(x) > x.shape[1]:
        x = x.mT
    a, b, c = QUINTIC
    gram, one = x @ x.mT, torch.eye(len(x), dtype=x.dtype, device=x.device)
    product = one
    for _ in range(5):
        factor = a * one + b * gram + c * gram @ gram
        product, gram = factor @ product, factor @ gram @ factor
    x = product @ x
    return x if x.shape == matrix.shape else x.mT.contiguous()
