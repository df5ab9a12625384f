"""What a run in a latent needs before its first step: the latents' scale, and latents on disk."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from lightning import Trainer
from torch import Tensor

from unnoise.config.problems import ConfigError
from unnoise.data.latents import VERSION, Latents, make_room, parts, size_of
from unnoise.data.source import Images, Split
from unnoise.distributed import group as ranks
from unnoise.distributed.environment import place
from unnoise.models.codec import LatentCodec
from unnoise.networks.autoencoders import Trained
from unnoise.runs.averaged import weights_digest
from unnoise.training.data_module import ImageDataModule
from unnoise.training.logging.record import say


class Part(NamedTuple):
    """The first ``n`` pictures of a split, mirrored or not, and the folder of their latents."""

    split: Split
    mirrored: bool
    n: int
    folder: str


class Sums(NamedTuple):
    """Of a block of latents: its part and number, how many numbers a channel has, their sum and the
    sum of their squares (D,), float64."""

    part: int
    block: int
    numbers: int
    first: Tensor
    second: Tensor


def prepare(codec: Any, data: ImageDataModule, trainer: Trainer, resumed: bool) -> None:
    """Encode both splits of a run in a latent, so that ``data`` reads latents.

    The scale of a run that is not ``resumed`` is measured over all training pictures, with the
    mirrored ones where the run mirrors. If there is no room on disk for the latents, each step
    encodes its own. Every rank calls it; those of a machine share the work.
    """
    if not isinstance(codec, LatentCodec) or codec.is_pixels:
        return
    device = trainer.strategy.root_device
    codec.to(device)
    data.latents.clear()  # a run that went back was here before
    measures = not (resumed or codec.has_scale)
    every, of = ranks.broadcast(_parts(codec, data, device)), _share(trainer)
    recipe: Any = data.recipe
    kept = _opened(every, codec, device, recipe.latent_cache)
    found: list[Sums] = []
    for number, part in enumerate(every):
        is_measured = measures and part.split == "train"
        images = data.splits[part.split]

        def encode(rows: Tensor, images: Images = images, mirrored: bool = part.mirrored) -> Tensor:
            pixels = images.read(rows)
            return codec.moments((pixels.flip(-1) if mirrored else pixels).to(device)).cpu()

        if kept:
            blocks: Iterable[tuple[int, Tensor]] = kept[number].blocks(encode, *of)
        elif is_measured:
            blocks = ((block, encode(rows)) for block, rows in parts(part.n, *of))
        else:
            blocks = ()
        for block, moments in blocks:
            if is_measured:
                found.append(_sums(codec, number, block, moments))
    everywhere = ranks.broadcast(ranks.gather(found))  # all wait until all is encoded
    if measures:
        try:
            codec.set_scale(*spread([each for of_rank in everywhere for each in of_rank]))
        except ValueError as error:
            raise ConfigError(f"autoencoder: {error}") from error
    for part, latents in zip(every, kept, strict=bool(kept)):
        data.latents.setdefault(part.split, []).append(latents)


def spread(found: Sequence[Sums]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel, both (D,) float64, whoever summed what.

    Machines that each encoded all blocks say the same of each.
    """
    each = [sums for _, sums in sorted({(sums.part, sums.block): sums for sums in found}.items())]
    count = sum(sums.numbers for sums in each)
    mean = torch.stack([sums.first for sums in each]).sum(0) / count
    square = torch.stack([sums.second for sums in each]).sum(0) / count
    return mean, (square - mean.square()).clamp(min=0).sqrt()


def _sums(codec: LatentCodec, part: int, block: int, moments: Tensor) -> Sums:
    """E z² = (E z)² + Var z of each drawn latent z."""
    mean, variance = (each.double() for each in codec.autoencoder.spread(moments))
    first, second = (each.sum((0, *range(2, each.ndim))) for each in (mean, mean**2 + variance))
    return Sums(part, block, mean[:, 0].numel(), first, second)


def _parts(codec: LatentCodec, data: ImageDataModule, device: torch.device) -> list[Part]:
    """All that the run reads. What decides the latents' last digit decides their folder."""
    recipe, facts = data.recipe, ranks.broadcast(data.facts)
    ways: list[tuple[Split, bool]] = [("train", False), ("validation", False)]
    ways += [("train", True)] if recipe.flip else []
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    autoencoder = codec.autoencoder
    encoder = type(autoencoder).__name__, weights_digest(autoencoder.state_dict())
    if isinstance(autoencoder, Trained):
        encoder = encoder[0], autoencoder.digest
    found = []
    for split, mirrored in ways:
        n, of = len(data.splits[split]), facts["fingerprint"]
        if split == "validation":
            n, of = min(n, recipe.validation_images), facts["validation_fingerprint"]
        key = of, n, mirrored, codec.data_shape, encoder, where, torch.__version__, VERSION
        found.append(Part(split, mirrored, n, hashlib.sha256(repr(key).encode()).hexdigest()[:16]))
    return found


def _opened(
    every: list[Part], codec: LatentCodec, device: torch.device, most: float
) -> list[Latents]:
    """The latents of each part; none, and a line that says why, where there is no room."""
    picture = torch.zeros(1, *codec.data_shape, dtype=torch.uint8, device=device)
    shape = tuple(codec.moments(picture).shape[1:])
    sizes = {part.folder: size_of(part.n, shape) for part in every}
    refusal = None
    if place().local_rank == 0:  # the first process of a machine makes the files
        try:
            refusal = make_room(sizes, most * 1e9)
            for part in every if refusal is None else ():
                Latents(part.folder, part.n, shape)
        except OSError as error:
            refusal = f"{error.filename}: {error.strerror}"
    if refusal := next(filter(None, ranks.broadcast(ranks.gather(refusal))), None):
        if place().rank == 0:
            say(f"latents are not kept on disk, and each step encodes its own: {refusal}")
        return []
    return [Latents(part.folder, part.n, shape) for part in every]


def _share(trainer: Trainer) -> tuple[int, int]:
    """Of the ranks of this machine, which one this is and how many there are."""
    return place().local_rank, max(1, trainer.world_size // trainer.num_nodes)
