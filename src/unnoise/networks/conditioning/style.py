"""The style of a reference picture: its colours and textures without their places."""

from collections.abc import Mapping
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from unnoise.networks.conditioning.base import Condition, Conditioner, ConditionShape, read

FEATURES = 32


class StyleConditioner(Conditioner):
    """A vector of what ``batch["image"]`` (B, C, H, W) uint8 is made of.

    Two 3 × 3 convolutions see 3 and 5 pixels across; the mean and the deviation of each of their
    features over all pixels say how the picture looks but not where what is, as in style transfer
    (Gatys et al. 2016; these statistics: Huang & Belongie 2017). They are learned together with
    the network, and so is the null vector.

    Args:
        channels: C.
        width: D of the vector.
    """

    reads = ("image",)

    def __init__(
        self, channels: Annotated[int, Field(ge=1)], width: Annotated[int, Field(ge=1)]
    ) -> None:
        super().__init__()
        self.shape = ConditionShape(vector=width)
        self.conv1, self.conv2 = nn.Conv2d(channels, FEATURES, 3), nn.Conv2d(FEATURES, FEATURES, 3)
        self.out = nn.Linear(4 * FEATURES, width)
        self.null = nn.Parameter(torch.zeros(width))

    def forward(self, batch: Mapping[str, Any], keep: Tensor) -> Condition:
        """Look at the references: vector (B, width)."""
        x = read(batch, "image").float() / 127.5 - 1
        near = F.silu(self.conv1(x))
        wide = F.silu(self.conv2(near))
        style = self.out(torch.cat([*statistics(near), *statistics(wide)], dim=1))
        return Condition(vector=torch.where(keep[:, None], style, self.null))

    def picture(self, batch: Mapping[str, Any]) -> Tensor:
        """The reference."""
        reference: Tensor = read(batch, "image")
        return reference


def statistics(h: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over the pixels of (B, C, H, W), each (B, C) float32."""
    variance, mean = torch.var_mean(h.float(), dim=(2, 3), correction=0)
    return mean, (variance + 1e-6).sqrt()
