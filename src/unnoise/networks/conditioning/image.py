"""Conditions that pictures give: edges, a low resolution, greys, or the style of a reference.

Shapes: B batch, C channels of the picture (1 grey, 3 colour), H × W pixels.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from unnoise.config.numbers import Count
from unnoise.networks.conditioning.base import Condition, Conditioner, ConditionShape, read

FEATURES = 32  # of a style


class View(ABC):
    """What is shown of a picture; ``channels`` is how many channels it has."""

    channels: int

    @abstractmethod
    def __call__(self, picture: Tensor) -> Tensor:
        """Of pictures uint8 (B, C, H, W), float32 (B, channels, H, W) in [0, 1]."""


class Edges(View):
    """A drawing of the picture: lines one pixel wide, 1 on 0.

    The gradient to a neighbour is the greatest difference of a channel. Where it exceeds
    ``threshold``, the darker pixel of the two belongs to the line (both, where equally light), so
    that an outline is drawn where it is and not twice, left and right of itself.
    """

    channels = 1

    def __init__(self, threshold: Annotated[float, Field(ge=0, lt=1)] = 0.25) -> None:
        self.threshold = threshold

    def __call__(self, picture: Tensor) -> Tensor:
        """uint8 (B, C, H, W) to 0 or 1 (B, 1, H, W)."""
        x = picture.float() / 255
        light = luma(x)
        steepest = torch.zeros_like(light)
        for neighbour in neighbours(x):
            gradient = (neighbour - x).abs().amax(dim=1, keepdim=True)
            lighter = luma(neighbour) >= light
            steepest = torch.maximum(steepest, gradient * lighter)
        return (steepest > self.threshold).float()


class LowResolution(View):
    """The mean of each ``factor`` × ``factor`` block of pixels, put in all its places.

    The condition of super-resolution (Saharia et al. 2021, SR3).

    Args:
        factor: a divisor of H and W.
        channels: C.
    """

    def __init__(self, factor: Annotated[int, Field(ge=2)], channels: Count) -> None:
        self.factor, self.channels = factor, channels

    def __call__(self, picture: Tensor) -> Tensor:
        """uint8 (B, C, H, W) to the same in [0, 1]; ValueError if ``factor`` does not divide."""
        H, W = picture.shape[-2:]
        if H % self.factor or W % self.factor:
            raise ValueError(f"factor {self.factor} does not divide the {H}×{W} pixels")
        means = F.avg_pool2d(picture.float() / 255, self.factor)
        return F.interpolate(means, scale_factor=self.factor, mode="nearest")


class Grey(View):
    """The luma of a colour picture: the condition of colourisation (Saharia et al. 2022, Palette).

    Args:
        colours: channels of the picture.

    Raises:
        ValueError: the picture is grey already.
    """

    channels = 1

    def __init__(self, colours: Count) -> None:
        if colours != 3:
            raise ValueError(f"pictures with {colours} channels have no colours to take away")

    def __call__(self, picture: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) to (B, 1, H, W) in [0, 1]."""
        return luma(picture.float() / 255)


class PictureConditioner(Conditioner):
    """A view of ``batch["image"]`` (B, C, H, W) uint8, stacked on the network's input.

    Null is −1 everywhere, which no view shows.
    """

    reads = ("image",)

    def __init__(self, view: View) -> None:
        super().__init__()
        self.view, self.shape = view, ConditionShape(spatial=view.channels)

    def forward(self, batch: Mapping[str, Any], keep: Tensor) -> Condition:
        """Look: spatial (B, channels, H, W)."""
        shown = self.view(read(batch, "image"))
        return Condition(spatial=torch.where(keep[:, None, None, None], shown, -1.0))

    def picture(self, batch: Mapping[str, Any]) -> Tensor:
        """The view itself, uint8 (B, channels, H, W)."""
        return (self.view(read(batch, "image")) * 255).round().to(torch.uint8)


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

    def __init__(self, channels: Count, width: Count) -> None:
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


def luma(x: Tensor) -> Tensor:
    """How light each pixel is: (B, 1 or 3, H, W) to (B, 1, H, W), by ITU-R BT.601 for colours."""
    if x.shape[1] == 1:
        return x
    r, g, b = x.unbind(dim=1)
    return (0.299 * r + 0.587 * g + 0.114 * b).unsqueeze(1)


def neighbours(x: Tensor) -> list[Tensor]:
    """For each pixel the one above, below, left and right, or itself at the rim: 4 × x's shape."""
    above = torch.cat([x[..., :1, :], x[..., :-1, :]], dim=-2)
    below = torch.cat([x[..., 1:, :], x[..., -1:, :]], dim=-2)
    left = torch.cat([x[..., :1], x[..., :-1]], dim=-1)
    right = torch.cat([x[..., 1:], x[..., -1:]], dim=-1)
    return [above, below, left, right]


def statistics(h: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over the pixels of (B, C, H, W), each (B, C) float32."""
    variance, mean = torch.var_mean(h.float(), dim=(2, 3), correction=0)
    return mean, (variance + 1e-6).sqrt()
