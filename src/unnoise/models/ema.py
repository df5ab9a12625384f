"""The exponential moving average of a model's weights."""

import copy
from collections.abc import Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)


class EMA(nn.Module, Generic[Model]):
    """A second copy of a model whose weights follow the first's: w̄ ← w̄ + (1 − d)·(w − w̄).

    After t updates d = min(decay, (1 + t)/(10 + t)), so that short runs do not average in their
    random start. The copy is a model of its own: validation, sampling and checkpoints read
    ``EMA.model`` and nothing is ever swapped. Written as an interpolation the update leaves equal
    weights exactly equal; d·w̄ + (1 − d)·w would let them drift. Parts that are ``shared``, as they
    do not change, are those of the first model.
    """

    updates: Tensor

    def __init__(self, model: Model, decay: float, shared: Sequence[nn.Module] = ()) -> None:
        super().__init__()
        same = {id(part): part for part in shared}
        self.model: Model = copy.deepcopy(model, same).requires_grad_(False)
        both = {id(parameter) for part in shared for parameter in part.parameters()}
        self._parameters_of_copy: list[Tensor] = [
            parameter for parameter in self.model.parameters() if id(parameter) not in both
        ]
        # Where both keep buffers, found once: the tensors in there change when a model is moved
        modules = zip(self.model.modules(), model.modules(), strict=True)
        self._pairs = [(a._buffers, b._buffers) for a, b in modules if a is not b and a._buffers]
        self.decay = decay
        self.register_buffer("updates", torch.tensor(0))
        self._count: int | None = None  # `updates` on the host, so that no step waits for the GPU

    def decay_at(self, t: int) -> float:
        """d of update t = 0, 1, 2, …"""
        return min(self.decay, (1 + t) / (10 + t))

    @torch.no_grad()
    def update(self, parameters: list[Tensor]) -> None:
        """Follow the model that the copy was made of: its parameters, in their order, averaged.

        Its buffers, such as the statistics of a batch norm, are copied.
        """
        if self._count is None:
            self._count = int(self.updates)
        weight = 1 - self.decay_at(self._count)
        torch._foreach_lerp_(self._parameters_of_copy, parameters, weight)
        for copied, followed in self._pairs:
            for name, own in copied.items():
                if own is not None and (other := followed[name]) is not None:
                    own.copy_(other)
        self._count += 1
        self.updates.fill_(self._count)
