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
    StyleConditioner,
    View,
)
from unnoise.networks.conditioning.text import (
    ClipEncoder,
    FrozenText,
    HuggingFaceEncoder,
    TextConditioner,
    TextEncoder,
    minilm,
)
