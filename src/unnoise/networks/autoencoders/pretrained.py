"""Weights of other implementations under our names: those of diffusers."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

import torch
from torch import Tensor, nn

from unnoise.networks.autoencoders.convolutional import ConvolutionalAutoencoder
from unnoise.networks.blocks import ResidualBlock, SelfAttention

RESIDUAL = {name: name for name in ("norm1", "conv1", "norm2", "conv2")}
RESIDUAL |= {"shortcut": "conv_shortcut"}
ATTENTION = {
    "norm": [["group_norm"]],
    "qkv": [["to_q", "query"], ["to_k", "key"], ["to_v", "value"]],
    "out": [["to_out.0", "proj_attn"]],
}
"""What diffusers calls the layers of a block: of each part of a layer the names, oldest last."""


def from_diffusers(
    state: Mapping[str, Tensor], autoencoder: ConvolutionalAutoencoder
) -> dict[str, Tensor]:
    """The weights of diffusers' AutoencoderKL or VQModel, to be loaded into an autoencoder.

    Raises:
        KeyError: ``state`` is of another architecture, and lacks a layer.
        ValueError: it has weights for which the autoencoder has no place.
    """
    found: dict[str, Tensor] = {}
    rest = dict(state)
    for ours, theirs in _layers(autoencoder):
        for kind in ("weight", "bias"):
            parts = [_either(rest, names, kind) for names in theirs]
            found[f"{ours}.{kind}"] = parts[0] if len(parts) == 1 else torch.cat(parts)
    if "quantize.embedding.weight" in rest:
        vectors = rest.pop("quantize.embedding.weight")
        found |= {"quantizer.vectors": vectors, "quantizer.usage": torch.ones(len(vectors))}
    if rest:
        raise ValueError(f"the autoencoder has no place for {', '.join(sorted(rest))}")
    return found


def _either(rest: dict[str, Tensor], names: Sequence[str], kind: str) -> Tensor:
    """Takes it out of ``rest``."""
    for name in names:
        if f"{name}.{kind}" in rest:
            return rest.pop(f"{name}.{kind}")
    raise KeyError(f"there are no weights {names[0]}.{kind}: this is another network")


def _layers(autoencoder: ConvolutionalAutoencoder) -> Iterator[tuple[str, list[list[str]]]]:
    """Our name of each layer, and the names that each part of it has there."""
    yield "quant", [["quant_conv"]]
    yield "post_quant", [["post_quant_conv"]]
    for side in ("encoder", "decoder"):
        for ours, name in (("conv_in",) * 2, ("norm_out", "conv_norm_out"), ("conv_out",) * 2):
            yield f"{side}.{ours}", [[f"{side}.{name}"]]
    for side, theirs in chain(_places("encoder", "down", autoencoder.encoder.chain, -3),
                              _places("decoder", "up", autoencoder.decoder.chain, 0)):  # fmt: skip
        block = autoencoder.get_submodule(side)
        if isinstance(block, ResidualBlock):
            for ours, name in RESIDUAL.items():
                if not isinstance(block.get_submodule(ours), nn.Identity):
                    yield f"{side}.{ours}", [[f"{theirs}.{name}"]]
        elif isinstance(block, SelfAttention):
            for ours, parts in ATTENTION.items():
                yield f"{side}.{ours}", [[f"{theirs}.{name}" for name in part] for part in parts]
        else:
            yield f"{side}.conv", [[f"{theirs}.conv"]]


def _places(side: str, way: str, blocks: nn.Sequential, middle: int) -> Iterator[tuple[str, str]]:
    """Our name and theirs of each block; the three from ``middle`` on are between the levels."""
    first, level, number = middle % len(blocks), 0, 0
    names = iter(("mid_block.resnets.0", "mid_block.attentions.0", "mid_block.resnets.1"))
    for place, block in enumerate(blocks):
        if first <= place < first + 3:
            name = next(names)
        elif isinstance(block, ResidualBlock):
            name, number = f"{way}_blocks.{level}.resnets.{number}", number + 1
        elif isinstance(block, SelfAttention):
            name = f"{way}_blocks.{level}.attentions.{number - 1}"
        else:
            name, level, number = f"{way}_blocks.{level}.{way}samplers.0", level + 1, 0
        yield f"{side}.chain.{place}", f"{side}.{name}"
