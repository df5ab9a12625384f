"""The same network twice: ours, and diffusers' UNet2DModel with the same weights."""

from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

import torch
from diffusers import UNet2DModel
from torch import Tensor, nn

from unnoise.networks.conditioning import ConditionShape
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
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
        attention_head_dim=head_size,
        norm_eps=1e-6,
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
    )
    if classes:
        nn.init.eye_(ours.condition.weight)
    state = dict(translated(dict(theirs.named_parameters())))
    missing, unknown = ours.load_state_dict(state, strict=False)
    assert not unknown
    assert all(name.startswith("condition.") for name in missing)
    return ours, theirs


def translated(state: dict[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """Diffusers' named tensors (weights or gradients), under our names and shapes."""
    heads = {
        "time_embedding.linear_1": "time1",
        "time_embedding.linear_2": "time2",
        "conv_in": "conv_in",
        "conv_norm_out": "norm_out",
        "conv_out": "conv_out",
    }
    for theirs, ours in heads.items():
        yield from _layer(state, theirs, ours)

    levels = len({name.split(".")[1] for name in state if name.startswith("down_blocks.")})
    down, up = count(), count()
    for level in range(levels):
        for side, number in (("down", down), ("up", up)):
            prefix = f"{side}_blocks.{level}"
            for i in count():
                if f"{prefix}.resnets.{i}.conv1.weight" not in state:
                    break
                yield from _stage(state, prefix, i, i, f"{side}.{next(number)}")
            sampler = f"{prefix}.{side}samplers.0.conv"
            if f"{sampler}.weight" in state:
                yield from _layer(state, sampler, f"{side}.{next(number)}.conv")
    yield from _stage(state, "mid_block", 0, 0, "middle.0")
    yield from _stage(state, "mid_block", 1, None, "middle.1")


def _stage(
    state: dict[str, Any], prefix: str, resnet: int, attention: int | None, ours: str
) -> Iterator[tuple[str, Tensor]]:
    names = {"time_emb_proj": "time", "conv_shortcut": "shortcut"}
    for theirs in ("norm1", "conv1", "time_emb_proj", "norm2", "conv2", "conv_shortcut"):
        name = f"{prefix}.resnets.{resnet}.{theirs}"
        if f"{name}.weight" in state:
            yield from _layer(state, name, f"{ours}.block.{names.get(theirs, theirs)}")
    attend = f"{prefix}.attentions.{attention}"
    if f"{attend}.to_q.weight" in state:
        yield from _layer(state, f"{attend}.group_norm", f"{ours}.attention.norm")
        yield from _layer(state, f"{attend}.to_out.0", f"{ours}.attention.out")
        for kind in ("weight", "bias"):
            parts = [state[f"{attend}.to_{part}.{kind}"] for part in "qkv"]
            yield f"{ours}.attention.qkv.{kind}", torch.cat(parts)


def _layer(state: dict[str, Any], theirs: str, ours: str) -> Iterator[tuple[str, Tensor]]:
    for kind in ("weight", "bias"):
        yield f"{ours}.{kind}", state[f"{theirs}.{kind}"]
