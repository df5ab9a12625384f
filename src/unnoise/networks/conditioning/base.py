"""What conditions the network, besides the noisy image and its noise level.

Shapes: B batch, C channels, H × W pixels, D width of the condition vector, L tokens of width E.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from unnoise.config.numbers import Count


class Condition(NamedTuple):
    """A batch of conditions, each field one way into the network; None where it is not used."""

    vector: Tensor | None = None  # (B, D), added to the time embedding
    tokens: Tensor | None = None  # (B, L, E), which the pixels attend to
    mask: Tensor | None = None  # (B, L) bool: the tokens that count, at least one; None: all
    spatial: Tensor | None = None  # (B, C, H, W), stacked on the noisy image

    def joined(self, other: "Condition") -> "Condition":
        """Both batches one behind the other; the shorter rows of tokens are padded.

        Lets one call of the network see the batch with its conditions and without, as
        classifier-free guidance needs.

        Raises:
            ValueError: only one of them has a field.
        """
        longest = max(_length(self), _length(other))
        fields = zip(self._padded(longest), other._padded(longest), strict=True)
        return Condition(*(_cat(*pair) for pair in fields))

    def _padded(self, length: int) -> "Condition":
        """With ``length`` tokens, those beyond L masked."""
        if self.tokens is None:
            return self
        mask = self.tokens.new_ones(self.tokens.shape[:2], dtype=torch.bool)
        more = length - self.tokens.shape[1]
        return self._replace(
            tokens=F.pad(self.tokens, (0, 0, 0, more)),
            mask=F.pad(mask if self.mask is None else self.mask, (0, more)),
        )


def _length(condition: Condition) -> int:
    return 0 if condition.tokens is None else condition.tokens.shape[1]


def _cat(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    if first is None and second is None:
        return None
    if first is None or second is None:
        raise ValueError("conditions to be joined must have the same fields")
    return torch.cat([first, second])


Width = Annotated[int, Field(ge=0)]


@dataclass(frozen=True)
class ConditionShape:
    """The widths of a condition's fields: D of the vector, E of the tokens, C of the picture.

    0 stands for a field that is not used.
    """

    vector: Width = 0
    tokens: Width = 0
    spatial: Width = 0

    @property
    def only_vector(self) -> int:
        """D, for networks that take nothing else; ValueError if there is more."""
        if self.tokens or self.spatial:
            raise ValueError("takes no captions or pictures as its condition: use "
                             "conditioning=class or none")  # fmt: skip
        return self.vector


UNCONDITIONAL = ConditionShape()


class Conditioner(nn.Module, ABC):
    """Turns a batch into its condition; trained together with the network.

    ``shape`` says what it gives, and the network is built for that; ``reads`` names what it needs
    of "label", "caption" and "image".
    """

    shape: ConditionShape = UNCONDITIONAL
    reads: tuple[str, ...] = ()

    @abstractmethod
    def forward(self, batch: Mapping[str, Any], keep: Tensor) -> Condition:
        """The condition of each sample, or the null condition where ``keep`` (B,) bool is False.

        Null conditions teach the network to do without, as classifier-free guidance needs
        (Ho & Salimans 2022, Algorithm 1).

        Raises:
            ValueError: the batch lacks something of ``reads``.
        """

    def examples(self, ids: Tensor) -> dict[str, Any] | None:
        """A batch of example prompts, as a function of the sample ids (B,).

        None where it takes a data set to know.
        """
        return None

    def words(self, batch: Mapping[str, Any]) -> list[str] | None:
        """The prompts in words, to print below each picture; None if words do not say them."""
        return None

    def picture(self, batch: Mapping[str, Any]) -> Tensor | None:
        """The prompts as pictures, uint8 (B, 1 or 3, H, W); None if no picture shows them."""
        return None


def read(batch: Mapping[str, Any], key: str) -> Any:
    """``batch[key]``; ValueError if the batch has no such key."""
    if key not in batch:
        has = ", ".join(batch) or "nothing"
        raise ValueError(f"the conditioning reads {key!r} of a batch, but this one has {has}")
    return batch[key]


class ClassConditioner(Conditioner):
    """A learned vector for each class, and one (row ``classes`` of the table) for no class.

    Reads ``batch["label"]`` (B,) int64 in [0, classes).
    """

    reads = ("label",)

    def __init__(self, classes: Count, width: Count) -> None:
        super().__init__()
        self.classes, self.shape = classes, ConditionShape(vector=width)
        self.table = nn.Embedding(classes + 1, width)

    def forward(self, batch: Mapping[str, Any], keep: Tensor) -> Condition:
        """Look the labels up: vector (B, width)."""
        labels = torch.where(keep, read(batch, "label"), self.classes)
        return Condition(vector=self.table(labels))

    def examples(self, ids: Tensor) -> dict[str, Any]:
        """Classes in turn."""
        return {"label": ids % self.classes}


class JointConditioner(Conditioner):
    """Several conditioners at once, all kept or all left out.

    Vectors are put side by side and spatial conditions on top of each other, in the order of
    ``parts``; tokens come from one part at most.

    Raises:
        ValueError: there are no parts, or more than one has tokens.
    """

    def __init__(self, parts: Mapping[str, Conditioner]) -> None:
        super().__init__()
        with_tokens = [name for name, part in parts.items() if part.shape.tokens]
        if not parts or len(with_tokens) > 1:
            found = " and ".join(with_tokens) or "no part at all"
            raise ValueError(f"a joint conditioner has parts, one with tokens at most, not {found}")
        self.parts = nn.ModuleDict(parts)
        shapes = [part.shape for part in parts.values()]
        self.shape = ConditionShape(
            vector=sum(shape.vector for shape in shapes),
            tokens=sum(shape.tokens for shape in shapes),
            spatial=sum(shape.spatial for shape in shapes),
        )
        self.reads = tuple(dict.fromkeys(key for part in parts.values() for key in part.reads))

    def forward(self, batch: Mapping[str, Any], keep: Tensor) -> Condition:
        """The conditions of all parts as one."""
        conditions: list[Condition] = [part(batch, keep) for part in self.parts.values()]
        vectors = [c.vector for c in conditions if c.vector is not None]
        pictures = [c.spatial for c in conditions if c.spatial is not None]
        spoken = next((c for c in conditions if c.tokens is not None), Condition())
        return Condition(
            vector=torch.cat(vectors, dim=1) if vectors else None,
            tokens=spoken.tokens,
            mask=spoken.mask,
            spatial=torch.cat(pictures, dim=1) if pictures else None,
        )

    def examples(self, ids: Tensor) -> dict[str, Any] | None:
        """Those of all parts, if they all have some."""
        batch: dict[str, Any] = {}
        for part in self._each():
            examples = part.examples(ids)
            if examples is None:
                return None
            batch |= examples
        return batch

    def words(self, batch: Mapping[str, Any]) -> list[str] | None:
        """Those of the first part that has words."""
        return next((w for part in self._each() if (w := part.words(batch)) is not None), None)

    def picture(self, batch: Mapping[str, Any]) -> Tensor | None:
        """That of the first part that has a picture."""
        return next((p for part in self._each() if (p := part.picture(batch)) is not None), None)

    def _each(self) -> list[Conditioner]:
        return [part for part in self.parts.values() if isinstance(part, Conditioner)]
