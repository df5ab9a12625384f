"""What a latent saves: FLOPs of a training step, and bytes kept for its backward pass.

The same U-Net is built for pictures of 3×S×S and for latents of 4×S/8×S/8, and a DiT with as many
tokens for both. They are taken through forward and backward pass of one picture on the meta device:
nothing is computed, but every operation counts, and every tensor that is kept (the shares of
attention, too, which a fused kernel does not keep). Beside them stands the autoencoder of Stable
Diffusion, whose work is once a picture: it encodes before training, and decodes after drawing.

    python tests/benchmarks/latent_cost.py
"""

import argparse
import json
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from unnoise.networks.autoencoders import KLAutoencoder
from unnoise.networks.dit import DiT
from unnoise.networks.unet import UNet

FACTOR, CHANNELS = 8, 4  # of Stable Diffusion's latent


class Cost(NamedTuple):
    """Of one picture: multiplications and additions, and bytes of what is kept."""

    forward: int
    step: int
    kept: int


def cost(network: nn.Module, *inputs: Tensor) -> Cost:
    """Of a network on the meta device; weights are not kept, they are there."""
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        kept[storage._cdata] = storage
        return x

    with FlopCounterMode(display=False) as counter:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            out = network(*inputs)
        forward = counter.get_total_flops()
        out.sum().backward()
    for weight in network.parameters():
        kept.pop(weight.untyped_storage()._cdata, None)
    size = sum(storage.nbytes() for storage in kept.values())
    return Cost(forward, counter.get_total_flops(), size)


def unet(shape: tuple[int, int, int]) -> nn.Module:
    """Four levels, attention at the last: 0.1 billion parameters."""
    return UNet(shape, shape[0], multipliers=(1, 2, 4, 4), attention_resolutions=(shape[1] // 8,))


def dit(shape: tuple[int, int, int]) -> nn.Module:
    """DiT-S with patches of 2 × 2 of the latent, or of the pixels of as much."""
    patch = 2 if shape[0] == CHANNELS else 2 * FACTOR
    return DiT(shape, shape[0], width=384, depth=12, heads=6, patch=patch)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    found: dict[str, Cost] = {}
    out = parser.parse_args().out
    print(f"{'network':<28} {'numbers':>8} {'forward':>12} {'step':>13} {'kept':>9}")
    for side in (256, 512):
        shapes = (3, side, side), (CHANNELS, side // FACTOR, side // FACTOR)
        with torch.device("meta"):
            t = torch.zeros(1)
            inputs = [torch.zeros(1, *shape) for shape in shapes]
            autoencoder = KLAutoencoder(3)
            for build in (unet, dit):
                for shape, x in zip(shapes, inputs, strict=True):
                    name = f"{build.__name__} {'×'.join(map(str, shape))}"
                    found[name] = cost(build(shape), x, t)
            found[f"encoder {side}×{side}"] = cost(autoencoder.encoder, inputs[0])
            found[f"decoder {side}×{side}"] = cost(autoencoder.decoder, inputs[1])
        for name, each in [*found.items()][-6:]:
            numbers = inputs[0 if "3×" in name or "encoder" in name else 1].numel()
            flops = f"{each.forward / 1e9:>6.0f} GFLOP {each.step / 1e9:>7.0f} GFLOP"
            print(f"{name:<28} {numbers:>8} {flops} {each.kept / 2**20:>6.0f} MB")
    if out is not None:
        out.write_text(json.dumps({name: each._asdict() for name, each in found.items()}))


if __name__ == "__main__":
    main()
