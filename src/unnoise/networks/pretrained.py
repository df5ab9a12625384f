"""Weights of diffusers under our names, and ours under theirs: U-Nets, and what is shared."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from unnoise.networks.blocks import ResidualBlock, SelfAttention
from unnoise.networks.transformer import SpatialTransformer
from unnoise.networks.unet import Stage, UNet

Layers = Iterable[tuple[str, Sequence[Sequence[str]]]]
"""Our name of each layer, and of each of its parts the names there, the newest first."""

RESIDUAL = {name: name for name in ("norm1", "conv1", "norm2", "conv2")}
RESIDUAL |= {"shortcut": "conv_shortcut", "time": "time_emb_proj"}
ATTENTION = {
    "norm": [["group_norm"]],
    "qkv": [["to_q", "query"], ["to_k", "key"], ["to_v", "value"]],
    "out": [["to_out.0", "proj_attn"]],
}
TRANSFORMER = {name: name for name in ("norm1", "norm2", "norm3")}
TRANSFORMER |= {"mlp1": "ff.net.0.proj", "mlp2": "ff.net.2"}
for _ours, _theirs in (("attention", "attn1"), ("cross", "attn2")):
    TRANSFORMER |= {f"{_ours}.{part}": f"{_theirs}.to_{part}" for part in "qkv"}
    TRANSFORMER |= {f"{_ours}.out": f"{_theirs}.to_out.0"}


def unet_from_diffusers(state: Mapping[str, Tensor], unet: UNet) -> dict[str, Tensor]:
    """The weights of diffusers' UNet2DModel or UNet2DConditionModel, to be loaded into a U-Net.

    Raises:
        KeyError: ``state`` is of another architecture, and lacks a layer.
        ValueError: it has weights for which the U-Net has no place, or the U-Net has a layer that
            no U-Net of diffusers has.
    """
    found, rest = translated(state, unet, unet_layers(unet))
    if rest:
        raise ValueError(f"the U-Net has no place for {', '.join(sorted(rest))}")
    return found


def unet_to_diffusers(unet: UNet) -> dict[str, Tensor]:
    """Our weights under diffusers' names; ValueError for a layer that its U-Nets do not have.

    For transformers with ``use_linear_projection=False``, as Stable Diffusion 1.5 has them.
    """
    found = untranslated(unet, unet_layers(unet))
    for name, value in found.items():
        if name.endswith((".proj_in.weight", ".proj_out.weight")):
            found[name] = value[..., None, None]
    return found


def untranslated(network: nn.Module, layers: Layers) -> dict[str, Tensor]:
    """Our weights of ``layers`` under the newest of their names; each has memory of its own."""
    found: dict[str, Tensor] = {}
    for ours, theirs in layers:
        for kind, value in network.get_submodule(ours).named_parameters():
            for (name, *_), part in zip(theirs, value.detach().chunk(len(theirs)), strict=True):
                found[f"{name}.{kind}"] = part.clone()
    return found


def translated(
    state: Mapping[str, Tensor], network: nn.Module, layers: Layers
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What ``layers`` name, under our names, and what is left over; KeyError if one is not there.

    A convolution of 1 × 1 fits where we have a linear layer.
    """
    found: dict[str, Tensor] = {}
    rest = dict(state)
    for ours, theirs in layers:
        for kind, own in network.get_submodule(ours).named_parameters():
            value = torch.cat([_either(rest, names, kind) for names in theirs])
            linear = own.ndim == 2 and value.shape[2:] == (1, 1)
            found[f"{ours}.{kind}"] = value.flatten(1) if linear else value
    return found, rest


def _either(rest: dict[str, Tensor], names: Sequence[str], kind: str) -> Tensor:
    """Takes it out of ``rest``."""
    for name in names:
        if f"{name}.{kind}" in rest:
            return rest.pop(f"{name}.{kind}")
    raise KeyError(f"there are no weights {names[0]}.{kind}: this is another network")


def unet_layers(unet: UNet) -> Iterator[tuple[str, list[list[str]]]]:
    """All of a U-Net's; ValueError for attention to tokens outside a transformer."""
    yield "time1", [["time_embedding.linear_1"]]
    yield "time2", [["time_embedding.linear_2"]]
    for ours, theirs in (("conv_in",) * 2, ("norm_out", "conv_norm_out"), ("conv_out",) * 2):
        yield ours, [[theirs]]
    for way, blocks in (("down", unet.down), ("up", unet.up)):
        level, number = 0, 0
        for place, layer in enumerate(blocks):
            ours, theirs = f"{way}.{place}", f"{way}_blocks.{level}"
            if isinstance(layer, Stage):
                yield from _stage(ours, layer, theirs, number)
                number += 1
            else:
                yield f"{ours}.conv", [[f"{theirs}.{way}samplers.0.conv"]]
                level, number = level + 1, 0
    for number, layer in enumerate(unet.middle):
        assert isinstance(layer, Stage)
        yield from _stage(f"middle.{number}", layer, "mid_block", number)


def _stage(
    ours: str, stage: Stage, theirs: str, number: int
) -> Iterator[tuple[str, list[list[str]]]]:
    if stage.cross is not None:
        raise ValueError("diffusers has attention to tokens in transformers only")
    yield from residual_layers(f"{ours}.block", stage.block, f"{theirs}.resnets.{number}")
    attention = f"{theirs}.attentions.{number}"
    if isinstance(stage.attention, SelfAttention):
        yield from attention_layers(f"{ours}.attention", attention)
    if isinstance(stage.transformer, SpatialTransformer):
        for name in ("norm", "proj_in", "proj_out"):
            yield f"{ours}.transformer.{name}", [[f"{attention}.{name}"]]
        for place, block in enumerate(stage.transformer.blocks):
            inner = f"{ours}.transformer.blocks.{place}"
            for name, their in TRANSFORMER.items():
                if _has(block, name):
                    yield f"{inner}.{name}", [[f"{attention}.transformer_blocks.{place}.{their}"]]


def residual_layers(
    ours: str, block: ResidualBlock, theirs: str
) -> Iterator[tuple[str, list[list[str]]]]:
    """Those of a residual block."""
    for name, their in RESIDUAL.items():
        if _has(block, name):
            yield f"{ours}.{name}", [[f"{theirs}.{their}"]]


def attention_layers(ours: str, theirs: str) -> Iterator[tuple[str, list[list[str]]]]:
    """Those of a self-attention."""
    for name, parts in ATTENTION.items():
        yield f"{ours}.{name}", [[f"{theirs}.{each}" for each in part] for part in parts]


def _has(module: nn.Module, name: str) -> bool:
    """Whether there is a layer of that name, with weights."""
    layers = dict(module.named_modules())
    return name in layers and any(True for _ in layers[name].parameters())
