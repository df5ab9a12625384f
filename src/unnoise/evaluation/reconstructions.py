"""What an autoencoder makes of blocks of pictures, as far as its sheet needs it.

Shapes: B pictures of a block, (C, H, W) uint8 each; latents of D channels, h × w places; G groups
of pictures, by which errors are estimated.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from unnoise.evaluation import estimates, latents
from unnoise.evaluation.autoencoder_sheet import Shown
from unnoise.evaluation.extractors.base import Extractor
from unnoise.evaluation.extractors.domain import DomainExtractor
from unnoise.evaluation.perceptual import PerceptualDistance
from unnoise.models.autoencoder import AutoencoderModel
from unnoise.networks.autoencoders import KLAutoencoder, Transform

TRANSFORMS = {"half size": Transform(0.5), "quarter turn": Transform(turns=1)}


class Pictures(NamedTuple):
    """Pictures (B, C, H, W) uint8, and the group (B,) of each."""

    pixels: Tensor
    groups: Tensor


class Block(NamedTuple):
    """What is kept of a block: numbers of each picture, and sums over them; on the CPU.

    Args:
        each: (B,) float64 by name.
        powers: by name (G, …) float64, the power of pictures and of latents, Σ over each group.
        total: (D, h, w) float64, Σ of the latents; of a posterior, of its mean.
        squares: the same of their squares.
        variance: (D,) float64, Σ over pictures of the mean variance of a channel's posterior.
        codes: (K,) how often each was used, or None.
        features: (2, B, F) of pictures and reconstructions, or None.
        shown: the first pictures and what became of them, or None.
    """

    each: dict[str, Tensor]
    powers: dict[str, Tensor]
    total: Tensor
    squares: Tensor
    variance: Tensor
    codes: Tensor | None
    features: Tensor | None
    shown: Shown | None

    @classmethod
    def whole(cls, blocks: Sequence["Block"]) -> "Block":
        """Several in order as one."""

        def summed(name: str) -> Tensor:
            return torch.stack([getattr(block, name) for block in blocks]).sum(0)

        first = blocks[0]
        features = [block.features for block in blocks if block.features is not None]
        return cls(
            each={key: torch.cat([b.each[key] for b in blocks]) for key in first.each},
            powers={k: torch.stack([b.powers[k] for b in blocks]).sum(0) for k in first.powers},
            total=summed("total"),
            squares=summed("squares"),
            variance=summed("variance"),
            codes=None if first.codes is None else summed("codes"),
            features=torch.cat(features, 1) if features else None,
            shown=first.shown,
        )


@torch.inference_mode()
def look(
    model: AutoencoderModel,
    pictures: Pictures,
    extractor: Extractor | None,
    batch_size: int,
    shows: bool = False,
) -> Block:
    """What there is to know of pictures, whose latents are not drawn, but their means.

    ``batch_size`` are encoded at a time, which makes no difference but rounding.
    """
    pixels, groups = pictures
    distance = PerceptualDistance(extractor) if isinstance(extractor, DomainExtractor) else None
    parts = [_seen(model, some, distance) for some in torch.split(pixels, batch_size)]
    each = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
    z, made = each.pop("z"), each.pop("made")
    codes, variance = each.pop("codes", None), each.pop("variance", None)
    size = getattr(getattr(model.autoencoder, "quantizer", None), "size", 0)
    features = None
    if extractor is not None:
        both = (extractor(some.to(model.device)) for some in (pixels, made))
        features = torch.stack([seen.pooled.float().cpu() for seen in both])
    return Block(
        each=each,
        powers={
            name: _grouped(latents.power(x), groups)
            for name, x in (("pictures", model.codec.encode(pixels)), ("latents", z))
        },
        total=z.sum(0),
        squares=z.square().sum(0),
        variance=z.new_zeros(z.shape[1]) if variance is None else variance.sum(0),
        codes=None if codes is None else codes.flatten().bincount(minlength=size),
        features=features,
        shown=Shown.of(pixels, made, z) if shows else None,
    )


def _seen(
    model: AutoencoderModel, pixels: Tensor, distance: PerceptualDistance | None
) -> dict[str, Tensor]:
    """Of a batch, (B, …) by name on the CPU; what is not whole is float64."""
    autoencoder, codec = model.autoencoder, model.codec
    pixels = pixels.to(model.device)
    x, found = codec.encode(pixels), {}
    if isinstance(autoencoder, KLAutoencoder):
        posterior = autoencoder.posterior(x)
        z = posterior.mean
        found["KL"] = posterior.kl / math.log(2)
        found["variance"] = posterior.logvar.exp().mean((2, 3))
    else:
        latent = autoencoder.latent(x)
        z = latent.z
        if latent.codes is not None:
            found["codes"] = latent.codes
    made = codec.decode(autoencoder.decode(z))
    found |= {"z": z, "made": made, "PSNR": latents.psnr(pixels, made)}
    if min(pixels.shape[2:]) >= latents.WINDOW:
        found["SSIM"] = latents.ssim(made, pixels)
    if distance is not None:
        found["perceptual distance"] = distance(x, codec.encode(made))
    for name, transform in TRANSFORMS.items():
        changed, like = transform.of(z, x)
        found[name] = latents.psnr(codec.decode(like), codec.decode(autoencoder.decode(changed)))
    here = {key: value.cpu() for key, value in found.items()}
    return {key: x.double() if x.is_floating_point() else x for key, x in here.items()}


def _grouped(x: Tensor, groups: Tensor) -> Tensor:
    """(B, …) summed over each group: (G, …)."""
    return x.new_zeros(estimates.GROUPS, *x.shape[1:]).index_add_(0, groups, x)
