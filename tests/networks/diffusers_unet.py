"""The same network twice: ours, and diffusers' UNet2DModel with the same weights."""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import UNet2DModel
from torch import nn

from unnoise.networks.blocks import Convention
from unnoise.networks.conditioning import ConditionShape
from unnoise.networks.pretrained import unet_from_diffusers
from unnoise.networks.unet import UNet


def same_networks(
    *,
    shape: tuple[int, int, int],
    outputs: int,
    channels: int = 128,
    multipliers: Sequence[int] = (1, 2, 2, 2),
    blocks: int = 2,
    attention_resolutions: Sequence[int] = (16,),
    head_size: int | None = None,
    norm_groups: int = 32,
    classes: int | None = None,
    convention: Convention = "ddpm",
) -> tuple[UNet, Any]:
    """A pair with equal random weights; with ``classes``, theirs embeds labels and ours takes
    the embedded label as its condition vector, through an identity."""
    attends = [shape[1] // 2**level in attention_resolutions for level in range(len(multipliers))]
    theirs: Any = UNet2DModel(  # type: ignore[no-untyped-call]
        sample_size=shape[1],
        in_channels=shape[0],
        out_channels=outputs,
        block_out_channels=tuple(channels * m for m in multipliers),
        layers_per_block=blocks,
        down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attends),
        up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)),
        downsample_padding=0 if convention == "ddpm" else 1,
        flip_sin_to_cos=convention == "adm",
        freq_shift=1 if convention == "ddpm" else 0,
        attention_head_dim=head_size,
        norm_eps=1e-6 if convention == "ddpm" else 1e-5,
        norm_num_groups=norm_groups,
        num_class_embeds=classes,
    )
    ours = UNet(
        shape,
        outputs,
        ConditionShape(vector=4 * channels if classes else 0),
        channels=channels,
        multipliers=multipliers,
        blocks=blocks,
        attention_resolutions=attention_resolutions,
        head_size=head_size,
        norm_groups=norm_groups,
        convention=convention,
    )
    if classes:
        nn.init.eye_(ours.condition.weight)
    state = dict(theirs.named_parameters())
    state.pop("class_embedding.weight", None)
    state = unet_from_diffusers(state, ours)
    missing, unknown = ours.load_state_dict(state, strict=False)
    assert not unknown
    assert all(name.startswith("condition.") for name in missing)
    return ours, theirs


def assert_same_gradients(ours: UNet, theirs: Any) -> None:
    """Of each parameter, in float64."""
    gradients: Any = {name: p.grad for name, p in theirs.named_parameters()}
    expected = unet_from_diffusers(gradients, ours)
    actual = {name: p.grad for name, p in ours.named_parameters()}
    assert actual.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(actual[name], gradient, rtol=1e-9, atol=1e-9, msg=name)
