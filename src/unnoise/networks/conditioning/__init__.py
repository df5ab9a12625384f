"""Conditioners: what the network is given besides the noisy picture and its time."""

from unnoise.networks.conditioning.base import (
    UNCONDITIONAL,
    ClassConditioner,
    Condition,
    Conditioner,
    ConditionShape,
    JointConditioner,
    read,
)
from unnoise.networks.conditioning.image import (
    Edges,
    Grey,
    LowResolution,
    PictureConditioner,
    View,
    luma,
    neighbours,
)
from unnoise.networks.conditioning.style import (
    FEATURES,
    StyleConditioner,
    statistics,
)
from unnoise.networks.conditioning.text import (
    MOST_REMEMBERED,
    MOST_TOKENS,
    HuggingFaceEncoder,
    TextConditioner,
    TextEncoder,
    minilm,
)

__all__ = [
    "FEATURES",
    "MOST_REMEMBERED",
    "MOST_TOKENS",
    "UNCONDITIONAL",
    "ClassConditioner",
    "Condition",
    "ConditionShape",
    "Conditioner",
    "Edges",
    "Grey",
    "HuggingFaceEncoder",
    "JointConditioner",
    "LowResolution",
    "PictureConditioner",
    "StyleConditioner",
    "TextConditioner",
    "TextEncoder",
    "View",
    "luma",
    "minilm",
    "neighbours",
    "read",
    "statistics",
]
