"""What every network of a denoiser is handed, and what it must give back."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from unnoise.config.numbers import Count
from unnoise.networks.conditioning import UNCONDITIONAL, Condition, ConditionShape


class Backbone(nn.Module, ABC):
    """F(x, t, condition), from (B, *shape) to (B, outputs, *shape[1:]).

    The first three arguments of a subclass's constructor are these, and are no keys of its YAML
    file: the recipe hands them over. A subclass writes ``run``; inputs are checked before it.

    Args:
        shape: of one input, channels first: (C, H, W) for pictures.
        outputs: channels of the output; twice C with a learned variance (Nichol & Dhariwal 2021).
        condition: what the conditioner gives.
    """

    def __init__(
        self, shape: Sequence[Count], outputs: Count, condition: ConditionShape = UNCONDITIONAL
    ) -> None:
        super().__init__()
        self.shape, self.outputs, self.condition_shape = tuple(shape), outputs, condition

    def forward(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """Apply the network.

        Args:
            x: (B, *shape).
            t: (B,), or () for all; any real numbers, DDPM's are 0 … T−1.
            condition: vector (B, D), tokens (B, L, E), mask (B, L) and spatial (B, C', *shape[1:]),
                as far as the network has been built for them.

        Raises:
            ValueError: x or t has another shape, or a part of the condition is missing, not wanted
                or of another shape.
        """
        condition = condition or Condition()
        self._check(x, t, condition)
        return self.run(x, t.expand(len(x)), condition).to(x.dtype)

    @abstractmethod
    def run(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """x (B, *shape) at times (B,) to (B, outputs, *shape[1:])."""

    def _check(self, x: Tensor, t: Tensor, condition: Condition) -> None:
        if x.shape[1:] != self.shape:
            wanted = ", ".join(map(str, self.shape))
            raise ValueError(f"x has shape {tuple(x.shape)}, the network wants (B, {wanted})")
        B = len(x)
        if t.shape not in ((), (B,)):
            raise ValueError(f"t has shape {tuple(t.shape)} for a batch of {B}")
        vector, tokens, mask, spatial = condition
        L, widths = 0 if tokens is None else tokens.shape[1], self.condition_shape
        _check_field("vector", vector, widths.vector, (B, widths.vector))
        _check_field("tokens", tokens, widths.tokens, (B, L, widths.tokens))
        _check_field("spatial", spatial, widths.spatial, (B, widths.spatial, *self.shape[1:]))
        if mask is not None and (mask.dtype != torch.bool or mask.shape != (B, L)):
            given = f"{mask.dtype} {tuple(mask.shape)}"
            raise ValueError(f"the condition's mask is {given}, not torch.bool {(B, L)}")


def _check_field(field: str, value: Tensor | None, width: int, shape: tuple[int, ...]) -> None:
    """A field of the condition has this shape, or is None where its width is 0."""
    if not width:
        if value is not None:
            raise ValueError(f"the condition has {field}, but the network was built without")
    elif value is None:
        raise ValueError(f"the network needs a condition with {field} of width {width}")
    elif value.shape != shape:
        raise ValueError(f"the condition's {field} has shape {tuple(value.shape)}, not {shape}")
