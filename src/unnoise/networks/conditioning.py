"""What the network is told besides the noisy image and its noise level.

Shapes: B batch, D width of the condition vector.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn


class Condition(NamedTuple):
    """A batch of conditions, each field one way into the network."""

    vector: Tensor  # (B, D), added to the time embedding


class Conditioner(nn.Module, ABC):
    """Turns a batch into its condition; trained together with the network.

    ``width`` is D, the width of the vectors it gives.
    """

    width: int

    @abstractmethod
    def forward(self, batch: Mapping[str, Any], keep: Tensor) -> Condition:
        """The condition of each sample, or the null condition where ``keep`` (B,) bool is False.

        Null conditions teach the network to do without, as classifier-free guidance needs
        (Ho & Salimans 2022, Algorithm 1).
        """

    @abstractmethod
    def examples(self, ids: Tensor) -> dict[str, Any]:
        """A batch that shows what can be asked for, as a function of the sample ids (B,)."""


class ClassConditioner(Conditioner):
    """A learned vector for each class, and one (row ``classes`` of the table) for no class.

    Reads ``batch["label"]`` (B,) int64 in [0, classes).
    """

    def __init__(
        self, classes: Annotated[int, Field(ge=1)], width: Annotated[int, Field(ge=1)]
    ) -> None:
        super().__init__()
        self.classes, self.width = classes, width
        self.table = nn.Embedding(classes + 1, width)

    def forward(self, batch: Mapping[str, Any], keep: Tensor) -> Condition:
        """Look the labels up: vector (B, width)."""
        labels = torch.where(keep, batch["label"], self.classes)
        return Condition(vector=self.table(labels))

    def examples(self, ids: Tensor) -> dict[str, Any]:
        """Classes in turn."""
        return {"label": ids % self.classes}
