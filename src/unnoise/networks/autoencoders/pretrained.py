"""Weights of diffusers' autoencoders under our names, and ours under theirs."""

from collections.abc import Iterator, Mapping
from itertools import chain

import torch
from torch import Tensor, nn

from unnoise.networks.autoencoders.convolutional import ConvolutionalAutoencoder
from unnoise.networks.autoencoders.quantizers import Codebook
from unnoise.networks.blocks import ResidualBlock, SelfAttention
from unnoise.networks.pretrained import (
    attention_layers,
    residual_layers,
    translated,
    untranslated,
)


def from_diffusers(
    state: Mapping[str, Tensor], autoencoder: ConvolutionalAutoencoder
) -> dict[str, Tensor]:
    """The weights of diffusers' AutoencoderKL or VQModel, to be loaded into an autoencoder.

    Raises:
        KeyError: ``state`` is of another architecture, and lacks a layer.
        ValueError: it has weights for which the autoencoder has no place.
    """
    found, rest = translated(state, autoencoder, _layers(autoencoder))
    if "quantize.embedding.weight" in rest:
        vectors = rest.pop("quantize.embedding.weight")
        found |= {"quantizer.vectors": vectors, "quantizer.usage": torch.ones(len(vectors))}
    if rest:
        raise ValueError(f"the autoencoder has no place for {', '.join(sorted(rest))}")
    return found


def to_diffusers(autoencoder: ConvolutionalAutoencoder) -> dict[str, Tensor]:
    """Our weights under the names of diffusers' AutoencoderKL or VQModel."""
    found = untranslated(autoencoder, _layers(autoencoder))
    if isinstance(quantizer := getattr(autoencoder, "quantizer", None), Codebook):
        found["quantize.embedding.weight"] = quantizer.vectors.clone()
    return found


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
            yield from residual_layers(side, block, theirs)
        elif isinstance(block, SelfAttention):
            yield from attention_layers(side, theirs)
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
