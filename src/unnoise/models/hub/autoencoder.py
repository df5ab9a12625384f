"""Autoencoders and the scale of latents: configs of AutoencoderKL and VQModel, and our nodes."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unnoise.models.base import a
from unnoise.models.codec import LatentCodec
from unnoise.models.hub.keys import Keys
from unnoise.models.hub.unet import group_faults, size
from unnoise.networks.autoencoders import (
    Autoencoder,
    Codebook,
    ConvolutionalAutoencoder,
    KLAutoencoder,
    Trained,
    VQAutoencoder,
    to_diffusers,
)
from unnoise.networks.autoencoders.convolutional import Encoder
from unnoise.networks.blocks import Downsample, ResidualBlock, SelfAttention

LEAST_LOGVAR = -30.0  # that diffusers does not clamp
DOWN, UP = "DownEncoderBlock2D", "UpDecoderBlock2D"
SHARED: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "block_out_channels": [64],
    "layers_per_block": 1,
    "down_block_types": [DOWN],
    "up_block_types": [UP],
    "norm_num_groups": 32,
    "sample_size": 32,
    "scaling_factor": 0.18215,
    "force_upcast": True,
}
FIXED: dict[str, tuple[Any, ...]] = {"act_fn": ("silu",), "mid_block_add_attention": (True,)}
KL = Keys(
    SHARED | {"latent_channels": 4, "shift_factor": None},
    FIXED
    | {
        "latents_mean": (None,),
        "latents_std": (None,),
        "use_quant_conv": (True,),
        "use_post_quant_conv": (True,),
    },
)
VQ = Keys(
    SHARED | {"latent_channels": 3, "num_vq_embeddings": 256, "vq_embed_dim": None},
    FIXED | {"norm_type": ("group",), "lookup_from_codebook": (False,)},
)


def network_of(autoencoder: Autoencoder) -> Autoencoder:
    """The network of a trained one, which may come from another run."""
    return autoencoder.network if isinstance(autoencoder, Trained) else autoencoder


def autoencoder_faults(autoencoder: Autoencoder) -> Iterator[str]:
    """What of an autoencoder diffusers' AutoencoderKL and VQModel do not have."""
    network = network_of(autoencoder)
    coded = isinstance(network, VQAutoencoder) and isinstance(network.quantizer, Codebook)
    if not (isinstance(network, KLAutoencoder) or coded):
        codes = f" of {a(network.quantizer)}" if isinstance(network, VQAutoencoder) else ""
        yield f"autoencoder: {a(network)}{codes} is neither an AutoencoderKL nor a VQModel"
        return
    assert isinstance(network, ConvolutionalAutoencoder)
    if network.patch > 1:
        yield f"autoencoder: diffusers' have no patches, here of {network.patch} pixels"
    yield from group_faults(network, autoencoder_class(network), "norm_groups of the autoencoder")


def autoencoder_class(network: nn.Module) -> str:
    """The class of an autoencoder alone."""
    return "AutoencoderKL" if isinstance(network, KLAutoencoder) else "VQModel"


def autoencoder_config(
    network: ConvolutionalAutoencoder, data_shape: tuple[int, ...]
) -> dict[str, Any]:
    """The arguments of the class of an autoencoder without faults, but its scale."""
    widths, blocks, attends = _levels(network.encoder)
    levels, plain = len(widths), len(widths) - sum(attends)
    codes = {}
    if isinstance(network, VQAutoencoder):
        width = network.latent_channels
        codes = {"num_vq_embeddings": network.quantizer.size, "vq_embed_dim": width}
    return {
        "in_channels": network.colours,
        "out_channels": network.colours,
        "block_out_channels": widths,
        "layers_per_block": blocks,
        "down_block_types": [f"Attn{DOWN}" if each else DOWN for each in attends],
        "up_block_types": [f"Attn{UP}"] * (levels - plain) + [UP] * plain,
        "latent_channels": network.latent_channels,
        "norm_num_groups": network.decoder.norm_out.num_groups,
        "sample_size": max(data_shape[1:]),
        "force_upcast": True,
        **codes,
    }


def decoder_of(
    codec: LatentCodec, data_shape: tuple[int, ...]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Config and weights of the AutoencoderKL that decodes latents as a codec does.

    Where latents are codes it does so, too: a VQModel would round them to codes first. Its encoder
    then gives the latent before that, and a variance of e⁻³⁰.
    """
    network = network_of(codec.autoencoder)
    assert isinstance(network, KLAutoencoder | VQAutoencoder)
    config = autoencoder_config(network, data_shape)
    if isinstance(network, KLAutoencoder):
        state, factor = scaled_weights(codec, network)
        return config | {"scaling_factor": factor}, state
    state = to_diffusers(network)
    del state["quantize.embedding.weight"], config["num_vq_embeddings"], config["vq_embed_dim"]
    for name in ("encoder.conv_out.weight", "encoder.conv_out.bias", "quant_conv.bias"):
        state[name] = torch.cat((state[name], torch.zeros_like(state[name])))
    width = network.latent_channels
    state["quant_conv.bias"][width:] = LEAST_LOGVAR
    state["quant_conv.weight"] = F.pad(state["quant_conv.weight"], (0, 0, 0, 0, 0, width, 0, width))
    return config | {"scaling_factor": 1.0}, state


def _levels(encoder: Encoder) -> tuple[list[int], int, list[bool]]:
    """Widths, blocks a level, and which levels attend; the last three parts are the middle."""
    levels: list[list[nn.Module]] = [[]]
    for part in list(encoder.chain)[:-3]:
        if isinstance(part, Downsample):
            levels.append([])
        else:
            levels[-1].append(part)
    blocks = [[each for each in part if isinstance(each, ResidualBlock)] for part in levels]
    attends = [any(isinstance(each, SelfAttention) for each in part) for part in levels]
    return [each[-1].conv2.out_channels for each in blocks], len(blocks[0]), attends


def scaled_weights(codec: LatentCodec, network: KLAutoencoder) -> tuple[dict[str, Tensor], float]:
    """The weights for diffusers, and the ``scaling_factor`` beside them.

    A scale that is the same for all channels, without a shift, is that factor. Else it goes into
    the 1 × 1 convolutions on both sides of the latent, which makes (z − shift)·scale their latent,
    with a factor of 1.
    """
    state = to_diffusers(network)
    if codec.scale is None or codec.shift is None:
        return state, 1.0
    scale, shift = (each.detach().double().flatten() for each in (codec.scale, codec.shift))
    if not bool(shift.any()) and bool((scale == scale[0]).all()):
        return state, float(f"{float(scale[0]):.8g}")
    encode = state["quant_conv.weight"].double(), state["quant_conv.bias"].double()
    decode = state["post_quant_conv.weight"].double(), state["post_quant_conv.bias"].double()
    by = torch.cat((scale, torch.ones_like(scale)))
    away = torch.cat((-shift * scale, 2 * scale.log()))  # of ln variance: + 2 ln scale
    state["quant_conv.weight"] = (encode[0] * by[:, None, None, None]).float()
    state["quant_conv.bias"] = (encode[1] * by + away).float()
    state["post_quant_conv.weight"] = (decode[0] / scale[None, :, None, None]).float()
    state["post_quant_conv.bias"] = (decode[1] + decode[0].flatten(1) @ shift).float()
    return state, 1.0


def autoencoder_node_faults(config: Mapping[str, Any], file: str) -> Iterator[str]:
    """What of a config of AutoencoderKL or VQModel our autoencoders cannot do."""
    keys = _keys(config)
    yield from keys.faults(config, file)
    found = keys.filled(config)
    down, up, widths = (
        found[key] for key in ("down_block_types", "up_block_types", "block_out_channels")
    )
    numbers = ["in_channels", "layers_per_block", "latent_channels", "norm_num_groups"]
    numbers += ["num_vq_embeddings"] if keys is VQ else []
    if odd := [key for key in numbers if type(found[key]) is not int or found[key] < 1]:
        yield f"{file}: {odd[0]} is {found[odd[0]]!r}, not a whole number above 0"
        return
    whole = isinstance(widths, list) and widths and all(type(width) is int for width in widths)
    if not whole or len(widths) != len(down):
        yield f"{file}: block_out_channels and down_block_types are not as many"
        return
    attending = sum(kind == f"Attn{DOWN}" for kind in down)
    plain = len(down) - attending
    if down != [DOWN] * plain + [f"Attn{DOWN}"] * attending:
        yield f"{file}: down_block_types are not {DOWN}, and at the end Attn{DOWN}"
    elif up != [f"Attn{UP}"] * attending + [UP] * plain:
        yield f"{file}: up_block_types do not mirror down_block_types"
    groups = found["norm_num_groups"]
    if any(width % widths[0] or width % groups for width in widths) or widths[0] // 4 < groups:
        yield (
            f"{file}: block_out_channels {widths} are no multiples of the first, or make no groups "
            f"of 4 channels or more with norm_num_groups {groups}"
        )
    if found["out_channels"] != found["in_channels"]:
        yield f"{file}: out_channels is {found['out_channels']}, not in_channels"
    if keys is VQ and found["vq_embed_dim"] not in (None, found["latent_channels"]):
        yield f"{file}: vq_embed_dim is {found['vq_embed_dim']}, not latent_channels"
    if not isinstance(found["scaling_factor"], int | float) or not found["scaling_factor"] > 0:
        yield f"{file}: scaling_factor is {found['scaling_factor']!r}, not a number above 0"
    if size(found["sample_size"]) is None:
        yield f"{file}: sample_size is {found['sample_size']!r}, not one or two whole numbers"
    if keys is KL and found["shift_factor"] not in (None, 0):
        yield f"{file}: shift_factor is {found['shift_factor']}, but here only null can be done"


def autoencoder_node(config: Mapping[str, Any]) -> dict[str, Any]:
    """The node of a config without ``autoencoder_node_faults``."""
    keys = _keys(config)
    found = keys.filled(config)
    widths = found["block_out_channels"]
    shared = {
        "channels": widths[0],
        "multipliers": [each // widths[0] for each in widths],
        "blocks": found["layers_per_block"],
        "attention_levels": sum(kind != DOWN for kind in found["down_block_types"]),
        "norm_groups": found["norm_num_groups"],
        "patch": 1,
        "colours": found["in_channels"],
    }
    networks = "unnoise.networks.autoencoders."
    if keys is KL:
        latent = {"latent": found["latent_channels"], "kl_weight": 1e-6}
        return {"_target_": f"{networks}KLAutoencoder", **latent, **shared}
    codebook = {"size": found["num_vq_embeddings"], "width": found["latent_channels"]}
    quantizer = {"_target_": f"{networks}Codebook", **codebook, "commitment": 0.25, "decay": 0.99}
    return {"_target_": f"{networks}VQAutoencoder", "quantizer": quantizer, **shared}


def _keys(config: Mapping[str, Any]) -> Keys:
    return VQ if config.get("_class_name") == "VQModel" else KL
