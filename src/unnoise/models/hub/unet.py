"""U-Nets: the configs of diffusers' UNet2DModel and UNet2DConditionModel, and our nodes."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from unnoise.models.base import a
from unnoise.models.hub.keys import Keys
from unnoise.networks.blocks import SelfAttention
from unnoise.networks.transformer import SpatialTransformer
from unnoise.networks.unet import Stage, UNet

DOWN, ATTN_DOWN, CROSS_DOWN = "DownBlock2D", "AttnDownBlock2D", "CrossAttnDownBlock2D"
CONVENTIONS = {
    "ddpm": {"downsample_padding": 0, "flip_sin_to_cos": False, "freq_shift": 1, "norm_eps": 1e-6},
    "adm": {"downsample_padding": 1, "flip_sin_to_cos": True, "freq_shift": 0, "norm_eps": 1e-5},
}
SHARED: dict[str, Any] = {
    "sample_size": None,
    "in_channels": 3,
    "out_channels": 3,
    "layers_per_block": 2,
    "dropout": 0.0,
    "norm_num_groups": 32,
    "attention_head_dim": 8,
    "num_train_timesteps": None,
    **CONVENTIONS["adm"],
}
FIXED: dict[str, tuple[Any, ...]] = {
    "center_input_sample": (False,),
    "time_embedding_type": ("positional",),
    "time_embedding_dim": (None,),
    "mid_block_scale_factor": (1, 1.0),
    "act_fn": ("silu",),
    "resnet_time_scale_shift": ("default",),
    "class_embed_type": (None,),
    "num_class_embeds": (None,),
}
PIXELS = Keys(
    SHARED
    | {
        "down_block_types": [DOWN, *[ATTN_DOWN] * 3],
        "up_block_types": [*["AttnUpBlock2D"] * 3, "UpBlock2D"],
        "block_out_channels": [224, 448, 672, 896],
    },
    FIXED
    | {
        "mid_block_type": ("UNetMidBlock2D",),
        "downsample_type": ("conv",),
        "upsample_type": ("conv",),
        "attn_norm_num_groups": (None,),
        "add_attention": (True,),
    },
)
TOKENS = Keys(
    SHARED
    | {
        "in_channels": 4,
        "out_channels": 4,
        "down_block_types": [*[CROSS_DOWN] * 3, DOWN],
        "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
        "block_out_channels": [320, 640, 1280, 1280],
        "cross_attention_dim": 1280,
        "transformer_layers_per_block": 1,
        "use_linear_projection": False,
        "upcast_attention": False,
    },
    FIXED
    | {
        "mid_block_type": ("UNetMidBlock2DCrossAttn",),
        "num_attention_heads": (None,),
        "resnet_skip_time_act": (False,),
        "resnet_out_scale_factor": (1.0, 1),
        "conv_in_kernel": (3,),
        "conv_out_kernel": (3,),
        "attention_type": ("default",),
        "cross_attention_norm": (None,),
        "addition_embed_type_num_heads": (64,),
        "only_cross_attention": (False,),
        "dual_cross_attention": (False,),
        "mid_block_only_cross_attention": (None, False),
    },
)


def unet_faults(unet: nn.Module, theirs: str) -> Iterator[str]:
    """What of a network diffusers' class ``theirs`` does not have."""
    if not isinstance(unet, UNet):
        yield f"the network is {a(unet)}: diffusers' pipelines of this kind take a U-Net"
        return
    transformers = _transformers(unet)
    if theirs == "UNet2DModel" and transformers:
        yield "network.transformer_depth: UNet2DModel has no transformers"
    elif theirs != "UNet2DModel" and not transformers:
        yield f"network.transformer_depth: {theirs} attends to tokens in transformers only"
    yield from group_faults(unet, theirs, "network.norm_groups")
    if len(_heads(unet)) > 1:
        widths = ", ".join(map(str, sorted(map(str, _heads(unet)))))
        yield f"its attention has heads of {widths} channels: {theirs} has one size for all"
    if len(numbers := {each[0].attention.heads for each in transformers}) > 1:
        found = ", ".join(map(str, sorted(numbers)))
        yield f"its transformers have {found} heads: {theirs} has one number here, network.heads"


def group_faults(network: nn.Module, theirs: str, key: str) -> Iterator[str]:
    """Whether group norms have the same number of groups everywhere, as diffusers' have."""
    norms = [each for each in network.modules() if isinstance(each, nn.GroupNorm)]
    groups = {each.num_groups for each in norms}
    if len(groups) > 1:
        found = ", ".join(map(str, sorted(groups)))
        shared = math.gcd(*(each.num_channels for each in norms))
        fits = max(g for g in range(1, min(groups) + 1) if shared % g == 0)
        one = f"{theirs} has one number for all; a run with {key}={fits} would fit"
        yield f"its group norms have {found} groups, by their channels: {one}"


def unet_config(unet: UNet) -> dict[str, Any]:
    """The arguments of the class for which this U-Net has no ``unet_faults``."""
    levels: list[list[Stage]] = [[]]
    for layer in unet.down:
        if isinstance(layer, Stage):
            levels[-1].append(layer)
        else:
            levels.append([])
    height, width = unet.shape[1:]
    (head,), attending, more = _heads(unet), ATTN_DOWN, dict[str, Any]()
    if transformers := _transformers(unet):
        (block, *_), attending = transformers[0], CROSS_DOWN
        head = block.attention.heads  # there the key counts heads
        more = {
            "cross_attention_dim": block.cross.k.in_features,
            "transformer_layers_per_block": len(transformers[0]),
            "use_linear_projection": False,
        }
    attends = [bool(stages[0].attention or stages[0].transformer) for stages in levels]
    return {
        "sample_size": height if height == width else [height, width],
        "in_channels": unet.shape[0],
        "out_channels": unet.outputs,
        "block_out_channels": [stages[-1].block.conv2.out_channels for stages in levels],
        "layers_per_block": len(levels[0]),
        "down_block_types": [attending if each else DOWN for each in attends],
        "up_block_types": [_up(attending if each else DOWN) for each in reversed(attends)],
        "dropout": levels[0][0].block.dropout.p,
        "attention_head_dim": head,
        "norm_num_groups": unet.norm_out.num_groups,
        **CONVENTIONS[unet.convention],
        **more,
    }


def _transformers(unet: nn.Module) -> list[list[Any]]:
    """The blocks of each."""
    return [[*each.blocks] for each in unet.modules() if isinstance(each, SpatialTransformer)]


def _heads(unet: UNet) -> set[int | None]:
    """Channels of a head of each self-attention; None where one head has all of them."""
    parts = [each for each in unet.modules() if isinstance(each, SelfAttention)]
    if all(each.heads == 1 for each in parts):
        return {None}
    return {each.out.out_features // each.heads for each in parts}


def _up(down: str) -> str:
    return down.replace("Down", "Up")


def unet_node_faults(config: Mapping[str, Any], file: str) -> Iterator[str]:
    """What of a config of UNet2DModel or UNet2DConditionModel our U-Net cannot do."""
    keys = _keys(config)
    yield from keys.faults(config, file)
    found = keys.filled(config)
    own = {name: found[name] for name in CONVENTIONS["adm"]}
    if own not in CONVENTIONS.values():
        said = ", ".join(f"{key} {value}" for key, value in own.items())
        yield f"{file}: {said} together are neither DDPM's convention nor ADM's"
    widths, down, up = (
        found[key] for key in ("block_out_channels", "down_block_types", "up_block_types")
    )
    if not _are(widths, int) or not _are(down, str) or not widths or len(widths) != len(down):
        yield f"{file}: block_out_channels and down_block_types are not as many"
        return
    plain, attending = (DOWN, ATTN_DOWN if keys is PIXELS else CROSS_DOWN)
    if odd := [kind for kind in down if kind not in (plain, attending)]:
        yield f"{file}: down_block_types has {odd[0]}, but here only {plain} or {attending} exist"
    elif up != [_up(kind) for kind in reversed(down)]:
        yield f"{file}: up_block_types do not mirror down_block_types"
    numbers = ("in_channels", "out_channels", "layers_per_block", "norm_num_groups")
    if odd := [key for key in numbers if type(found[key]) is not int or found[key] < 1]:
        yield f"{file}: {odd[0]} is {found[odd[0]]!r}, not a whole number above 0"
        return
    if size(found["sample_size"]) is None:
        yield f"{file}: sample_size is {found['sample_size']!r}, not one or two whole numbers"
    if any(width < 4 or width % widths[0] for width in widths):
        yield f"{file}: block_out_channels {widths} are no multiples of the first"
    elif any(width % found["norm_num_groups"] for width in widths):
        yield f"{file}: norm_num_groups {found['norm_num_groups']} does not divide {widths}"
    elif widths[0] // 4 < found["norm_num_groups"]:
        most = f"groups of fewer than 4 channels, with norm_num_groups {found['norm_num_groups']}"
        yield f"{file}: block_out_channels {widths} have {most}: not done here"
    if keys is TOKENS and type(found["transformer_layers_per_block"]) is not int:
        yield f"{file}: transformer_layers_per_block differs by level: not done here"
    if keys is TOKENS and type(found["attention_head_dim"]) is not int:
        yield f"{file}: attention_head_dim differs by level: not done here"


def unet_node(config: Mapping[str, Any]) -> dict[str, Any]:
    """The node of the U-Net that a config without ``unet_node_faults`` stands for."""
    keys = _keys(config)
    found = keys.filled(config)
    widths, (height, width) = found["block_out_channels"], size(found["sample_size"]) or (0, 0)
    first, head = widths[0], found["attention_head_dim"]
    tokens = found["cross_attention_dim"] if keys is TOKENS else 0
    own = {name: found[name] for name in CONVENTIONS["adm"]}
    return {
        "_target_": "unnoise.networks.unet.UNet",
        "channels": first,
        "multipliers": [each // first for each in widths],
        "blocks": found["layers_per_block"],
        "attention_resolutions": [
            max(height, width) // 2**level
            for level, kind in enumerate(found["down_block_types"])
            if kind != DOWN
        ],
        "head_size": None if keys is TOKENS else head,
        "dropout": found["dropout"],
        "norm_groups": found["norm_num_groups"],
        "heads": head if keys is TOKENS else None,  # there the key counts heads
        "transformer_depth": found["transformer_layers_per_block"] if keys is TOKENS else 0,
        "convention": next(name for name, each in CONVENTIONS.items() if each == own),
        "shape": [found["in_channels"], height, width],
        "outputs": found["out_channels"],
        "condition": {
            "_target_": "unnoise.networks.conditioning.ConditionShape",
            "vector": 0,
            "tokens": tokens,
            "spatial": 0,
        },
    }


def size(value: Any) -> tuple[int, int] | None:
    """Height and width of a ``sample_size``; None if it is neither one number nor two."""
    found = [value, value] if type(value) is int else value
    if isinstance(found, list) and len(found) == 2 and all(type(n) is int and n > 0 for n in found):
        return found[0], found[1]
    return None


def _are(values: Any, kind: type) -> bool:
    return isinstance(values, list) and all(type(value) is kind for value in values)


def _keys(config: Mapping[str, Any]) -> Keys:
    return TOKENS if config.get("_class_name") == "UNet2DConditionModel" else PIXELS
